"""What a map of patches says: its columns, its notes, what is run for and what is not, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import models
import pytest
import torch

from visit import Edit, VisitError, capture, load_model, patch
from visit.causal.patching import PatchingJob, attributed
from visit.causal.two_runs import two_runs

FRANCE, JAPAN = "The capital of France is the city of", "The capital of Japan is the city of"
LONGER = "The big capital of Japan is the city of"


@pytest.fixture(scope="module")
def mini():
    return load_model("visit-mini")


def test_the_capital_moves_from_the_country_to_the_end(mini):
    table = patch(mini, FRANCE, JAPAN)
    assert list(table) == [
        "id", "layer", "head", "pos", "token", "pos_b", "token_b", "effect", "exact", "m", "estimate", "changed",
    ]  # fmt: skip
    about = table.attrs
    assert (about["target"]["token"], about["distractor"]["token"]) == (" Tokyo", " Paris")
    assert about["m_a"] < -20 and about["m_b"] > 20 and about["first_difference"] == 3
    assert about["prompt"] == FRANCE and about["prompt_b"] == JAPAN and about["alignment"][3] == [3, 3]
    stream = table.pivot(index="layer", columns="pos", values="effect")
    assert stream.shape == (8, 8) and stream.loc[0:2, 3].tolist() == pytest.approx([1, 1, 1], abs=0.01)
    assert stream.loc[7, 7] > 0.9 and stream.loc[7, 3] < 0.1
    row = table[(table["layer"] == 2) & (table["pos"] == 3)].iloc[0]
    assert (row["id"], row["token"], row["token_b"]) == ("L2.resid_pre", " France", " Japan")
    assert row["m"] == pytest.approx(about["m_a"] + row["effect"] * (about["m_b"] - about["m_a"]))
    assert about["notes"] == [
        "Positions 0 to 2 hold the same tokens in both prompts, and so the same numbers: a patch there changes nothing."
    ]


@pytest.mark.parametrize(("site", "at", "rows"), [
    ("resid", None, 64), ("resid", "last", 8), ("resid", "all", 8), ("mlp_out", "each", 64), ("heads", None, 64),
    ("heads", "all", 64), ("heads", "last", 64), ("heads", "each", 512),
])  # fmt: skip
def test_a_row_is_a_place(mini, site, at, rows):
    """Without a word sums are patched at each position, heads at all: layers × positions, layers × heads."""
    table = patch(mini, FRANCE, JAPAN, site, at, "attribution")
    assert len(table) == rows and table["head"].notna().all() == (site == "heads")
    assert table.attrs["at"] == (at or ("all" if site == "heads" else "each"))
    assert any(note.startswith("Positions") for note in table.attrs["notes"]) == (table.attrs["at"] == "each")
    assert table["pos"].isna().all() == (table.attrs["at"] == "all")


def test_a_token_without_a_partner_is_missing_and_said(mini):
    table = patch(mini, LONGER, FRANCE)
    lone = table[table["pos"] == 1]
    assert lone["effect"].isna().all() and lone["pos_b"].isna().all() and (lone["changed"] == 0).all()
    assert "Without a partner in the other prompt, and so not patched: “·big” (position 1)." in table.attrs["notes"]
    assert table.loc[table["pos"] == 2, "pos_b"].tolist() == [1] * 8
    quick = patch(mini, LONGER, FRANCE, method="attribution", verify=99999)
    assert quick.loc[lone.index, "effect"].isna().all() and not quick.loc[lone.index, "exact"].any()


def test_records_prompts_and_token_ids_are_one(mini):
    tables = [patch(mini, a, b, "attn_out") for a, b in (
        (FRANCE, JAPAN), (capture(mini, FRANCE), JAPAN), (FRANCE, capture(mini, JAPAN)),
        tuple(capture(mini, p).token_ids for p in (FRANCE, JAPAN)),
    )]  # fmt: skip
    for table in tables[1:]:
        assert table["effect"].tolist() == pytest.approx(tables[0]["effect"].tolist(), abs=1e-5)


def test_a_run_patched_with_itself_stays_as_it_is():
    """Every place is run for here, which `patch` would not do where nothing differs."""
    model = models.exact("gemma3")
    runs = two_runs(model, [5, 17, 3, 99, 41], [5, 17, 3, 60, 41], 7, 9)
    itself = replace(runs, b=runs.question.acts, first=0)
    for site in ("resid", "attn_out", "mlp_out", "heads"):
        for at in ("each", "last", "all"):
            job = PatchingJob.of(itself, site, at)
            assert job.items == []
            job.update(sorted(job.cells(), key=lambda cell: cell.pos or 0))
            assert abs(job.moved).max() < 1e-12 and len(job.moved) == len(list(job.cells()))


def test_before_the_first_difference_runs_would_say_the_same_within_rounding(mini):
    runs = two_runs(mini, FRANCE, JAPAN)
    job = PatchingJob.of(replace(runs, first=0), "resid", "each")
    job.update(cells := [cell for cell in job.cells() if cell.pos == 2])
    assert len(cells) == 8 and abs(job.moved).max() / abs(runs.m_b - runs.m_a) < 1e-6


def test_a_job_stops_goes_on_and_shows_what_it_has(mini, monkeypatch):
    """Batches of one run each give the map of one large batch."""
    runs = two_runs(mini, FRANCE, JAPAN)
    whole, part, rest = (PatchingJob.of(runs, "heads") for _ in range(3))
    whole.update(whole.items)
    monkeypatch.setattr("visit.causal.patching.BATCH_BYTES", 1)
    part.update(part.items[:10])
    shown = part.snapshot()
    assert shown["exact"].sum() == shown["effect"].notna().sum() == 10 and shown.attrs["patched"] == 10
    rest.load(part.state())
    rest.update(rest.items[10:])
    assert rest.snapshot()["effect"].tolist() == pytest.approx(whole.snapshot()["effect"].tolist(), abs=1e-6)


def test_a_map_that_was_estimated_first_is_exact_when_all_is_patched(mini):
    """What needs no run counts as measured with the last patch; before it, it is as the others an estimate."""
    runs = two_runs(mini, FRANCE, JAPAN)
    job = PatchingJob.of(runs, "mlp_out")
    job.estimates = attributed(runs, "mlp_out")
    job.update(job.items[:5])
    part = job.snapshot()
    assert part["exact"].sum() == 5 and part["effect"].notna().all() and part.attrs["method"] == "attribution"
    job.update(job.items[5:])
    assert job.snapshot()["exact"].all() and job.snapshot().attrs["method"] == "exact"


def test_half_precision_is_measured_from_a_run_of_the_same_arithmetic():
    model = models.small("llama", torch.bfloat16)
    table = patch(model, [5, 17, 3, 99, 41], [5, 17, 3, 60, 41], target=7, distractor=9)
    assert table["effect"].loc[table["pos"] < 3].abs().max() == 0
    assert table[(table["layer"] == 0) & (table["pos"] == 3)]["effect"].item() == pytest.approx(1, abs=0.1)


def test_a_rotation_that_grows_with_the_prompt_makes_every_position_differ():
    """With a rotation chosen by the prompt's length no position of a longer prompt holds the same numbers."""
    model = models.exact("llama-longrope")
    short, long = list(range(20, 27)), [*range(20, 24), 90, *range(24, 30)]
    runs = two_runs(model, short, long, 7, 9)
    assert runs.first == 0 and not any("the same numbers" in note for note in runs.notes(True))


WRONG = [
    (([11, 12, 13], [21, 22, 23]), {}, "no token in common"),
    (([11, 12, 13], [11, 12, 13]), {}, "the same from the start"),
    (([11, 12, 13], [11, 12, 13, 14]), {}, "the same from the start"),
    ((FRANCE, JAPAN), {"target": " Paris"}, "the same word, “·Paris”"),
    ((FRANCE, JAPAN), {"site": "resid_pre"}, "site must be one of resid, attn_out, mlp_out, heads"),
    ((FRANCE, JAPAN), {"at": "first"}, "at must be one of each, last, all"),
    ((FRANCE, JAPAN), {"method": "quick"}, "method must be one of exact, attribution"),
    ((FRANCE, JAPAN), {"method": "attribution", "verify": -1}, "verify must be a whole number from 0"),
    ((FRANCE, JAPAN), {"verify": 3}, "verify belongs to method='attribution'"),
    ((FRANCE, JAPAN), {"target": " Tokyo Paris"}, "one token"),
    ((FRANCE, "The capital of Japan is the city"), {"at": "last"}, "no partner"),
]  # fmt: skip


@pytest.mark.parametrize(("prompts", "options", "says"), WRONG)
def test_a_mistake_is_refused_in_a_sentence(mini, prompts, options, says):
    words = {} if isinstance(prompts[0], str) else {"target": 7, "distractor": 9}
    with pytest.raises(VisitError, match=says):
        patch(mini, *prompts, **{**words, **options})


def test_answers_that_are_the_same_or_as_far_apart_in_both_runs_are_refused(mini):
    with pytest.raises(VisitError, match="Name B's answer as target and A's as distractor"):
        patch(mini, FRANCE, "The capital  of France is the city of")
    with pytest.raises(VisitError, match=r"needs 0\.1 at least"):
        a, b = (capture(mini, p) for p in (FRANCE, JAPAN))
        moved = (a.logits[-1] - b.logits[-1] - (a.logits[-1] - b.logits[-1])[5]).abs()
        patch(mini, a, b, target=5, distractor=int(moved.topk(2, largest=False).indices[1]))


def test_records_of_edited_runs_of_other_models_and_of_too_little_are_refused(mini):
    a, b = (capture(mini, p) for p in (FRANCE, JAPAN))
    with pytest.raises(VisitError, match="without edits"):
        patch(mini, a, capture(mini, JAPAN, edits=[Edit("L1.head0")]))
    other = capture(models.small("llama"), [5, 17, 3])
    for pair in ((a, other), (other, b)):
        with pytest.raises(VisitError, match=r"another model|of a model of"):
            patch(mini, *pair)
    with pytest.raises(VisitError, match="without 'z'"):
        patch(mini, a, replace(b, z=None))
    with pytest.raises(VisitError, match=r"what visit\.load_model returns"):
        patch("visit-mini", a, b)
