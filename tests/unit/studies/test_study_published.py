"""The study's vectors on real weights, against numbers that nobody here made; skipped where no weights are at hand.

`VISIT_REAL_MODELS` names a folder that holds `gpt2` (and, if there is one, `gpt2-medium`) as Hugging Face saves them.
The numbers are those of the authors' own rendered graphs of GPT-2 small, and of the paper's Figure 1 (medium).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from visit import capture, load_model, read_vectors
from visit.exact.decompose import head_results, memory_values
from visit.runs.prompts import Row
from visit.studies.measure import attended, state_at
from visit.studies.run import StudyRun
from visit.studies.settings import Settings

FOLDER = os.environ.get("VISIT_REAL_MODELS")
IOI, MARY = "When Mary and John went to the store, John gave a drink to", " Mary"
JAPAN, TOKYO = "The capital of Japan is the city of", " Tokyo"
STATES = {8: (0.00005, 24), 9: (0.23067, 2), 10: (0.60707, 1), 11: (0.44603, 1)}  # after block: probability, rank
HEADS = {(9, 9): 1, (9, 6): 2, (10, 0): 1, (10, 7): 50257, (11, 10): 50257}  # rank of " Mary"
NORMS = {9: 118.26, 10: 166.649, 11: 254.767}  # of what enters the block


def real(name):
    folder = Path(FOLDER or "") / name
    if not FOLDER or not (folder / "config.json").is_file():
        pytest.skip(f"no weights: VISIT_REAL_MODELS names no folder that holds {name}")
    return load_model(str(folder))


@pytest.fixture(scope="module")
def small():
    model = real("gpt2")
    return model, capture(model, IOI)


@pytest.mark.parametrize("layer", STATES)
def test_states_read_what_the_authors_graph_shows(small, layer):
    model, acts = small
    probability, rank = STATES[layer]
    found = read_vectors(model, state_at(model, acts, "resid_post", layer, len(acts.tokens) - 1), MARY).iloc[0]
    assert found["prob"] == pytest.approx(probability, rel=1e-3, abs=6e-6) and found["rank"] == rank


@pytest.mark.parametrize(("layer", "head"), HEADS)
def test_heads_rank_the_target_as_the_authors_graph_shows(small, layer, head):
    model, acts = small
    found = read_vectors(model, head_results(model, acts, layer, len(acts.tokens) - 1)[head], MARY).iloc[0]
    assert found["rank"] == HEADS[layer, head]
    if (layer, head) == (9, 9):
        assert found["prob"] == pytest.approx(0.99981, abs=1e-5)


@pytest.mark.parametrize("layer", NORMS)
def test_the_stream_is_as_long_as_the_authors_graph_shows(small, layer):
    _, acts = small
    assert float(acts.resid_pre[layer, -1].norm()) == pytest.approx(NORMS[layer], rel=1e-4)


def test_the_study_reads_the_predictions_probability_from_the_same_states(small):
    model, _ = small
    job = StudyRun(model, [Row(IOI, MARY, line=1)], Settings(figures=("14",), draws=1))
    job.update(job.items)
    found = job.snapshot()
    assert found.correct == 1
    curve = found.cells["14/prediction"].mean[0, 0, 0, :, 0, 0]
    for layer, (probability, _) in STATES.items():
        assert curve[layer] == pytest.approx(probability, rel=1e-3, abs=6e-6)


def test_gpt2_medium_finds_tokyo_in_block_14():
    model = real("gpt2-medium")
    acts = capture(model, JAPAN)
    t = len(acts.tokens) - 1
    for name, layer, probability in (
        ("resid_pre", 14, 0.00889),
        ("resid_mid", 14, 0.25764),
        ("resid_post", -1, 0.29029),
    ):
        found = read_vectors(model, state_at(model, acts, name, layer, t), TOKYO).iloc[0]
        assert found["prob"] == pytest.approx(probability, rel=2e-3)
    source = acts.tokens.index(" Japan")
    value = memory_values(model, acts, 14, attended(acts, 14, t, t + 1))[7]
    place = attended(acts, 14, t, t + 1)[7].tolist().index(source)
    words = [w.strip().lower() for w in read_vectors(model, value[place], k=10)["tokens"].iloc[0]]
    assert {"yamato", "samurai"} & set(words)
