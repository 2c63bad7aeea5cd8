"""A set told in sentences: only what is sure is claimed, with its number and band."""

from __future__ import annotations

import pandas as pd

from visit.narrate.head_sets import difference_story, set_story, sure, with_band


def table(*rows: tuple[str, float, float, float], spread: float = 0.05, **attrs: object) -> pd.DataFrame:
    """Rows of (node, contribution, influence, effect), with bands of ± `spread`."""
    found = pd.DataFrame(rows, columns=["node", "contribution", "influence", "effect"])
    for name in ("contribution", "influence", "effect"):
        found[f"{name}_low"], found[f"{name}_high"] = found[name] - spread, found[name] + spread
    before = {"answer": 5.0, "low": 4.0, "high": 6.0, "prob": 0.5, "top": 0.75}
    found.attrs = {"prompts": 16, "how": "zero", "nodes": "heads", "answer": "difference", "before": before, **attrs}
    return found


def said(found: pd.DataFrame) -> list[str]:
    return ["".join(text for text, _ in sentence) for sentence in set_story(found)]


SMOLLM2 = (
    ("L23.head3", 2.21, 2.5, -2.39), ("L23.head0", 1.14, 0.1, -0.04), ("L20.head0", -0.03, 1.1, -1.79),
    ("L24.head4", -1.21, -1.1, 0.92),
)  # fmt: skip


def test_the_four_findings_are_told_with_their_numbers_and_can_be_clicked():
    found = table(*SMOLLM2)
    assert said(found) == [
        "Over 16 prompts the answer falls most without L23 H3 (−2.4 [−2.4, −2.3] logits); directly it adds +2.2.",
        "The answer rises most without L24 H4 (+0.92 [0.87, 0.97] logits); directly it takes 1.2.",
        "L23 H0 adds +1.1 [1.1, 1.2] logits directly, and without it no loss is measured (−0.04 [−0.09, 0.01]): "
        "others make up for it.",
        "L20 H0 adds nothing directly, and without it the answer falls (−1.8 [−1.8, −1.7]): it steers others that do.",
        "The answer is target − distractor: +5.0 logits [4.0, 6.0] as it is, and the target is the most probable word "
        "in 75 % of them.",
    ]
    nodes = [node for sentence in set_story(found) for _, node in sentence if node]
    assert nodes == ["L23.head3", "L24.head4", "L23.head0", "L20.head0"]


def test_a_head_that_is_told_first_is_not_told_again():
    told = said(table(*SMOLLM2[1:]))
    assert told[0].endswith(
        "without L20 H0 (−1.8 [−1.8, −1.7] logits); directly it adds nothing: it steers others that do."
    )
    assert sum("L20 H0" in sentence for sentence in told) == 1


def test_what_is_not_sure_is_not_claimed():
    assert said(table(*SMOLLM2, spread=3.0))[0] == (
        "Over 16 prompts no head moves the answer for sure: every band contains 0, or little changes."
    )
    found = table(*SMOLLM2, spread=1.0)
    assert sure(found, "effect").tolist() == [True, False, True, False]
    assert not any("rises" in sentence for sentence in said(found))


def test_that_others_make_up_for_a_head_is_not_said_of_a_band_that_holds_the_loss_of_all_it_adds():
    """Two prompts gave “+0.69 [−5.4, 6.8]: others make up for it”."""
    found = table(*SMOLLM2)
    assert any("others make up for it" in sentence for sentence in said(found))
    found.loc[1, ["effect_low", "effect_high"]] = -5.4, 6.8
    assert not any("make up for it" in sentence for sentence in said(found))


def test_one_prompt_has_numbers_without_bands():
    found = table(*SMOLLM2, spread=float("nan"), prompts=1)
    found.attrs["before"] |= {"low": float("nan"), "high": float("nan")}
    assert said(found)[0] == "Over 1 prompt the answer falls most without L23 H3 (−2.4 logits); directly it adds +2.2."
    assert with_band(found.iloc[0], "effect") == "−2.4"


def test_what_stands_in_the_place_is_named():
    assert "falls most with the mean in place of L23 H3" in said(table(*SMOLLM2, how="mean"))[0]
    told = said(table(*SMOLLM2, how="from", answer="logit"))
    assert "falls most with the partner's values of L23 H3" in told[0]
    assert "with the partner's instead no loss is measured" in told[2]
    assert told[-1].startswith("The answer is the target's logit above the mean of all words: +5.0")


def test_a_removal_that_helps_is_told_as_such():
    told = said(table(("L23.head1", 0.45, -0.4, 0.52), ("L23.head3", 2.2, 2.5, -2.4), ("L29.head0", -0.9, -0.9, 0.9)))
    assert "L23 H1 adds +0.45 [0.40, 0.50] logits directly, and without it the answer even rises" in told[2]


def test_roles_are_told_with_their_heads_and_those_that_are_not_sure_are_not():
    """Whoever looks for the name movers of Wang et al. had to search them in a table of 270 rows."""
    several = [(f"L23.head{n}", 0.2 + n / 10, 0.1, 0.0) for n in (1, 2, 5, 6, 7, 8)]
    found = table(*SMOLLM2, *several).assign(
        role=["suppressor", "mover", "inhibitor", "negative mover", *["mover"] * len(several)],
        attends_target=0.5, attends_distractor=0.5,
    )  # fmt: skip
    (told,) = [sentence for sentence in set_story(found) if sentence[0][0].startswith("By their roles")]
    assert "".join(text for text, _ in told) == (
        "By their roles: movers L23 H0, L23 H8, L23 H7, L23 H6, L23 H5 and 2 more; negative mover L24 H4; "
        "suppressor L23 H3; inhibitor L20 H0."
    )
    assert [node for _, node in told if node][-3:] == ["L24.head4", "L23.head3", "L20.head0"]
    found.loc[3, ["contribution_low", "contribution_high"]] = -5.0, 3.0
    (told,) = [sentence for sentence in said(found) if sentence.startswith("By their roles")]
    assert told.endswith("; inhibitor L20 H0; none is for sure a negative mover.")
    assert "By their roles" not in " ".join(said(table(*SMOLLM2))), "of neurons nothing is said"


def test_roles_that_no_head_has_are_named_and_not_those_of_a_word_that_stands_nowhere():
    nowhere = float("nan")
    found = table(*SMOLLM2).assign(role=None, attends_target=0.1, attends_distractor=0.1)
    assert "By their roles: no head is for sure a mover, a negative mover, a suppressor or an inhibitor." in said(found)
    assert "By their roles: no head is for sure a mover or a negative mover." in said(
        found.assign(attends_distractor=nowhere)
    )
    told = said(found.assign(attends_target=nowhere, attends_distractor=nowhere))
    assert any("neither stands in a prompt of this set" in sentence for sentence in told)


def differences(*rows: tuple[str, float, float], spread: float = 0.2) -> pd.DataFrame:
    found = pd.DataFrame(rows, columns=["node", "effect_a", "effect_b"])
    found["effect"] = found["effect_b"] - found["effect_a"]
    return found.assign(effect_low=found["effect"] - spread, effect_high=found["effect"] + spread)


def test_two_sets_are_told_by_what_matters_more_in_each_and_in_both_and_by_chance():
    found = differences(("L23.head3", -2.1, -0.22), ("L23.head4", 0.0, -0.97), ("L29.head1", -0.7, -0.68),
                        *[(f"L0.head{n}", 0.0, 0.0) for n in range(37)])  # fmt: skip
    told = difference_story(found, ("ioi", "facts"))
    assert ["".join(text for text, _ in sentence) for sentence in told] == [
        "L23 H3 matters more in ioi: without it the answer moves by −2.1 logits in ioi, by −0.22 in facts; the "
        "difference is +1.9 [1.7, 2.1].",
        "L23 H4 matters more in facts: without it the answer moves by +0 logits in ioi, by −0.97 in facts; the "
        "difference is −0.97 [−1.2, −0.77].",
        "L29 H1 matters in both: without it the answer moves by −0.70 and −0.68, no difference is sure.",
        "Of 40 heads 2 differ for sure; where none did, about 2 would seem to.",
    ]
    assert [node for sentence in told for _, node in sentence if node] == ["L23.head3", "L23.head4", "L29.head1"]
    (alone,) = difference_story(differences(("L0.head0", 0.0, 0.1), spread=1.0), ("a", "b"))
    assert alone[0][0] == "Of 1 heads none differs for sure."
    of = [difference_story(differences((node, 0.0, 0.1), spread=1.0), ("a", "b"))[-1][0][0] for node in
          ("L0.mlp_value7", "L0.mlp_out")]  # fmt: skip
    assert of == ["Of 1 neurons none differs for sure.", "Of 1 sums none differs for sure."]
