"""Patching on the trained model: the values that were measured on it, and full passes of its own code."""

from __future__ import annotations

import pytest

from visit import Edit, capture, patch

JAPAN, FRANCE = "The capital of Japan is the city of", "The capital of France is the city of"
JOHN = "When Mary and John went to the store, John gave a drink to"
MARY = "When Mary and John went to the store, Mary gave a drink to"


def stream(table):
    return table.pivot(index="layer", columns="pos", values="effect")


def test_the_capital_is_at_the_country_up_to_block_23_and_at_the_end_from_24(smollm2):
    table = patch(smollm2, JAPAN, FRANCE)
    about, effects = table.attrs, stream(table)
    assert (about["m_a"], about["m_b"]) == (pytest.approx(-11.09, abs=0.01), pytest.approx(9.00, abs=0.01))
    assert effects.shape == (30, 8) and effects.loc[0:12, 3].tolist() == pytest.approx([1.0] * 13, abs=0.01)
    assert effects.loc[[23, 24], 3].tolist() == pytest.approx([0.97, 0.02], abs=0.01)
    assert effects.loc[[23, 24, 29], 7].tolist() == pytest.approx([0.11, 0.69, 0.80], abs=0.01)
    assert (effects[[0, 1, 2]] == 0).all(axis=None) and abs(effects.loc[0, 3] - 1) < 1e-6


def test_the_outputs_and_heads_that_carry_the_capital(smollm2):
    attn, mlp = (patch(smollm2, JAPAN, FRANCE, site).set_index(["layer", "pos"]) for site in ("attn_out", "mlp_out"))
    assert attn.loc[(23, 7), "effect"] == pytest.approx(0.70, abs=0.01)
    assert attn["effect"].nlargest(2).iloc[1] == pytest.approx(0.11, abs=0.01)
    assert mlp.loc[(0, 3), "effect"] == pytest.approx(1.00, abs=0.01)
    assert mlp.loc[(29, 7), "effect"] == pytest.approx(0.16, abs=0.01)
    exact = patch(smollm2, JAPAN, FRANCE, "heads").set_index("id")
    five = {"L23.head4": 0.84, "L29.head1": 0.24, "L29.head0": -0.21, "L29.head2": 0.10, "L23.head5": 0.07}
    assert exact["effect"].abs().nlargest(5).index.tolist() == list(five)
    assert exact.loc[list(five), "effect"].tolist() == pytest.approx(list(five.values()), abs=0.01)
    quick = patch(smollm2, JAPAN, FRANCE, "heads", method="attribution", verify=10).set_index("id")
    assert quick["estimate"].corr(exact["effect"]) > 0.9
    done = quick[quick["exact"]]
    assert len(done) == 10 and done["effect"].tolist() == pytest.approx(exact.loc[done.index, "effect"], abs=1e-5)


def test_the_giver_moves_from_the_second_name_to_the_end(smollm2):
    table = patch(smollm2, JOHN, MARY)
    about, effects = table.attrs, stream(table)
    assert (about["m_a"], about["m_b"]) == (pytest.approx(-6.12, abs=0.01), pytest.approx(5.49, abs=0.01))
    assert effects.loc[0:19, 9].tolist() == pytest.approx([1.0] * 20, abs=0.03)
    assert effects.loc[[21, 23, 24], 9].tolist() == pytest.approx([0.66, 0.61, 0.04], abs=0.01)
    assert effects.loc[[21, 24], 13].tolist() == pytest.approx([0.37, 0.98], abs=0.01)
    attn = patch(smollm2, JOHN, MARY, "attn_out", "last")["effect"]
    assert attn[[20, 23, 24]].tolist() == pytest.approx([0.17, 0.91, -0.22], abs=0.01)
    heads = patch(smollm2, JOHN, MARY, "heads").set_index("id")["effect"]
    known = {"L23.head3": 0.61, "L29.head1": 0.26, "L29.head0": -0.20, "L24.head4": -0.18, "L20.head0": 0.16,
             "L19.head2": 0.12}  # fmt: skip
    assert heads.abs().nlargest(6).index.tolist() == list(known)
    assert heads[list(known)].tolist() == pytest.approx(list(known.values()), abs=0.01)


@pytest.mark.parametrize(("site", "at"), [("resid", "each"), ("heads", "all"), ("mlp_out", "last")])
def test_a_map_is_full_passes_with_the_edits_that_it_names(smollm2, site, at):
    a, b = capture(smollm2, JOHN), capture(smollm2, MARY)
    table = patch(smollm2, a, b, site, at)
    about = table.attrs
    t, d = about["target"]["id"], about["distractor"]["id"]
    for row in table[table["changed"] > 0].sample(12, random_state=1).itertuples():
        pos = "all" if at == "all" else row.pos
        logits = capture(smollm2, a.token_ids, ("logits",), [Edit(row.id, "from", b, pos)]).logits[-1]
        effect = (float(logits[t] - logits[d]) - about["m_a"]) / (about["m_b"] - about["m_a"])
        assert row.effect == pytest.approx(effect, abs=2e-6), row


def test_before_the_first_difference_a_patch_changes_nothing_worth_a_digit(smollm2):
    """Of two prompts of unequal length: what was left out of the map would have been rounding alone."""
    table = patch(smollm2, JAPAN, "The capital of the old France is the city of")
    about = table.attrs
    assert about["first_difference"] == 3
    a, b = (capture(smollm2, about[name]) for name in ("token_ids", "token_ids_b"))
    t, d = about["target"]["id"], about["distractor"]["id"]
    for layer in (0, 12, 29):
        logits = capture(smollm2, a.token_ids, ("logits",), [Edit(f"L{layer}.resid_pre", "from", b, [0, 1, 2])]).logits
        moved = float(logits[-1, t] - logits[-1, d]) - about["m_a"]
        assert abs(moved / (about["m_b"] - about["m_a"])) < 1e-6
