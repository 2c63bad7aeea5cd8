"""One's own question over a set: means of single maps of effects, sums that add up, lines that cannot be asked."""

from __future__ import annotations

from dataclasses import replace

import models
import numpy as np
import pandas as pd
import pytest

import visit
from visit import VisitError
from visit.causal import head_sets
from visit.causal.head_sets import HeadRun, no_lines, set_parts, set_role, set_table
from visit.causal.set_lines import as_set, asked_lines
from visit.runs.job import finish
from visit.runs.moments import student
from visit.runs.prompts import PromptSet, Row, read_prompts
from visit.runs.sums import merge

FAMILIES = ("gpt2", "neox", "llama", "gemma3", "opt-projected")  # plain, parallel, grouped, post-norms, projected
IDS = [
    [5, 17, 3, 99, 41, 17, 8, 20],
    [7, 70, 12, 4, 51, 9, 88, 21],
    [5, 9, 31, 70, 12, 9, 8, 33],
    [40, 2, 2, 66, 5, 17],
]
WORDS = [(31, 7), (12, 90), (4, 17), (80, 3)]
ROWS = [Row(ids, *words, line=n) for n, (ids, words) in enumerate(zip(IDS, WORDS, strict=True), start=1)]
CSV = """prompt,target,distractor
"When Mary and John went to the store, John gave a drink to", Mary, John
"When Nora and John went to the museum, John showed a bag to", Nora, John
"After Brian and Daniel left the museum, Brian sent a newspaper to", Daniel, Brian
"""


@pytest.fixture(scope="module")
def mini():
    return visit.load_model("visit-mini")


def single_maps(model, rows, nodes="heads", **options):
    tables = [
        visit.effects(model, visit.capture(model, r.prompt), nodes, r.pos or -1, r.target, r.distractor, **options)
        for r in rows
    ]
    columns = "contribution", "influence", "d_difference"
    return np.array([[table[column].to_numpy(float) for column in columns] for table in tables]), tables


@pytest.mark.parametrize("name", FAMILIES)
def test_the_table_is_the_mean_of_single_maps_with_students_band(name):
    model = models.small(name)
    x, tables = single_maps(model, ROWS)
    table = visit.head_question(model, ROWS)
    half = student(3) * x.std(0, ddof=1) / 2
    for i, measure in enumerate(("contribution", "influence", "effect")):
        assert table[measure].to_numpy() == pytest.approx(x.mean(0)[i], rel=1e-9, abs=1e-12)
        assert table[f"{measure}_low"].to_numpy() == pytest.approx((x.mean(0) - half)[i], rel=1e-7, abs=1e-12)
        assert table[f"{measure}_high"].to_numpy() == pytest.approx((x.mean(0) + half)[i], rel=1e-7, abs=1e-12)
    before = table.attrs["before"]
    assert before["answer"] == pytest.approx(np.mean([t.attrs["before"]["difference"] for t in tables]))
    assert table["node"].tolist() == tables[0]["node"].tolist() and table.attrs["prompts"] == 4
    assert table.attrs["answer"] == "difference" and table.attrs["notes"] == []


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("how", ["mean", "from"])
def test_means_and_partners_are_those_of_single_maps(name, how):
    model = models.small(name)
    partners = [[1, *row.prompt[1:-1], 60] for row in ROWS]
    rows = [Row(r.prompt, r.target, r.distractor, r.line, abc=abc) for r, abc in zip(ROWS, partners, strict=True)]
    table = visit.head_question(model, rows, how)
    sources = [IDS] * 4 if how == "mean" else partners
    x = [single_maps(model, [row], how=how, source=s)[0][0] for row, s in zip(ROWS, sources, strict=True)]
    found = table[["contribution", "influence", "effect"]].to_numpy().T
    assert found == pytest.approx(np.mean(x, axis=0), rel=1e-9, abs=1e-12)
    assert not np.allclose(found[2], visit.head_question(model, rows)["effect"])


@pytest.mark.parametrize("name", FAMILIES)
def test_contributions_and_the_rest_add_up_to_the_answer(name):
    """The rest of the heads is embedding, MLPs and biases, summed from the record by itself."""
    from visit.exact.question import ask

    model = models.small(name)
    rest = []
    for row in ROWS:
        acts = visit.capture(model, row.prompt)
        own = ask(model, acts, -1, row.target, row.distractor).attribution
        parts = [acts.resid_pre[0, -1], *acts.mlp_out[:, -1]]
        total = sum(float(own.of(part)) for part in parts) + own.constant
        attn = float(own.of(acts.attn_out[:, -1]).sum())
        heads = visit.effects(model, acts, "heads", -1, row.target, row.distractor)["contribution"].sum()
        rest.append(total + attn - heads)  # biases of attention
    for nodes in ("heads", "layers"):
        table = visit.head_question(model, ROWS, nodes=nodes)
        assert table["contribution"].sum() + table.attrs["rest"] == pytest.approx(table.attrs["before"]["answer"])
    assert visit.head_question(model, ROWS).attrs["rest"] == pytest.approx(np.mean(rest), rel=1e-5, abs=1e-6)


def test_layers_are_both_sums_of_every_block():
    model = models.small("gemma3")
    table = visit.head_question(model, ROWS, nodes="layers")
    assert table["node"].tolist() == [f"L{n}.{part}" for n in range(model.n_layers) for part in ("attn_out", "mlp_out")]
    x, _ = single_maps(model, ROWS, table["node"].tolist())
    assert table["effect"].to_numpy() == pytest.approx(x.mean(0)[2], rel=1e-9, abs=1e-12) and "role" not in table


def test_neurons_are_those_with_the_largest_mean_influence_over_the_set():
    model = models.small("llama")
    table = visit.head_question(model, ROWS, nodes="neurons")
    weights = []
    for row in ROWS:
        acts = visit.capture(model, row.prompt)
        own = visit.influence(model, acts, -1, row.target, row.distractor).dropna(subset=["neuron"])
        weights.append(own.set_index("node")["influence"])
    mean = (sum(weights) / 4).abs().sort_values(ascending=False)
    assert set(table["node"]) == set(mean.index[:100]) and len(table) == 100
    x, _ = single_maps(model, ROWS, table["node"].tolist())
    assert table["effect"].to_numpy() == pytest.approx(x.mean(0)[2], rel=1e-9, abs=1e-12)
    assert table["influence"].abs().is_monotonic_decreasing


@pytest.mark.parametrize("nodes", ["heads", "neurons"])
def test_two_halves_merge_to_the_whole(nodes):
    model = models.small("llama")
    asked = asked_lines(model, as_set(ROWS))
    whole = finish(HeadRun(model, asked, nodes))
    halves = []
    for part in (asked.lines[:1], asked.lines[1:]):
        run = HeadRun(model, asked, nodes)
        run.sums = replace(no_lines(model, nodes, "difference"), chosen=whole.chosen)
        for line in part:
            run.sums = merge(run.sums, run._measured(line))
        halves.append(run.sums)
    both = set_table(model, asked, merge(*halves), "zero")
    expected = set_table(model, asked, whole, "zero")
    numbers = [name for name in both.columns if both[name].dtype == float]
    assert both[numbers].to_numpy() == pytest.approx(expected[numbers].to_numpy(), rel=1e-9, abs=1e-12, nan_ok=True)
    if nodes == "neurons":
        other = replace(halves[1], chosen=halves[1].chosen[::-1].copy())
        with pytest.raises(VisitError, match="same neurons"):
            merge(halves[0], other)


@pytest.mark.parametrize("nodes", ["heads", "neurons"])
def test_a_run_that_was_cut_off_goes_on_to_the_same_bits(nodes):
    model = models.small("gpt2")
    asked = asked_lines(model, as_set(ROWS))
    whole = finish(HeadRun(model, asked, nodes))
    for cut in (1, 3, 5):
        first, second = HeadRun(model, asked, nodes), HeadRun(model, asked, nodes)
        first.update(first.items[:cut])
        second.load(first.state())
        second.update(second.items[cut:])
        again = second.snapshot()
        assert (again.moments["parts"].mean == whole.moments["parts"].mean).all()
        assert (again.moments["parts"].spread == whole.moments["parts"].spread).all()
        assert (again.looks == whole.looks).all() and set_parts(model, again) == set_parts(model, whole)


def test_without_distractors_it_is_the_logit_and_without_targets_the_prediction(mini):
    prompts = ["The capital of Japan is the city of", "The capital of France is the city of"]
    table = visit.head_question(mini, prompts)
    single = [visit.effects(mini, visit.capture(mini, p)) for p in prompts]
    assert table["effect"].to_numpy() == pytest.approx(
        np.mean([t["d_logit"] for t in single], axis=0),
        abs=2e-5,  # float32
    )
    assert table.attrs["answer"] == "logit" and table.attrs["before"]["top"] == 1
    assert "own prediction" in table.attrs["notes"][0] and "above the mean of all words" in table.attrs["notes"][1]
    one = visit.head_question(mini, prompts[:1])
    assert one["effect_low"].isna().all() and one["effect"].notna().all()


def test_every_line_that_cannot_be_asked_is_told(mini):
    text = """prompt,target,distractor,pos
The capital of Japan is the city of, Tokyo, Paris,
The capital of Japan is the city of, Tokyo, Tokyo,
The capital of Japan is the city of,, Paris,
The capital of Japan is the city of, Tokyo,,
The capital of Japan is the city of, Tokyozzz, Paris,
The capital of Japan is the city of, Tokyo, Paris,77
The capital of Japan is the city of, Tokyo, Paris,third
The capital of Japan is, the, a,3
"""
    asked = asked_lines(mini, read_prompts(text, "lines.csv"))
    notes = {note.line: note.reason for note in asked.promptset.notes}
    assert [line.row.line for line in asked.lines] == [2, 9] and set(notes) == {3, 4, 5, 6, 7, 8}
    assert "same token" in notes[3] and "no target" in notes[4] and "no distractor" in notes[5]
    assert "exactly one token" in notes[6] and "no position 77" in notes[7] and "'third'" in notes[8]
    assert asked.lines[1].pos == 3 and "positions differ by line" in asked.notes[0]
    first = asked_lines(mini, read_prompts(text, "lines.csv"), first_token=True)
    assert [line.row.line for line in first.lines] == [2, 6, 9]
    assert first.notes[0].startswith("Line 6: a word of several tokens")
    with pytest.raises(VisitError, match=r"holds no line .*\(line 2: it has no partner text"):
        asked_lines(mini, read_prompts(text, "lines.csv"), "from")


def test_mixed_lengths_are_told_where_they_matter(mini):
    rows = read_prompts(CSV, "a.csv").rows
    assert len({len(visit.capture(mini, row.prompt).token_ids) for row in rows}) > 1
    assert not asked_lines(mini, PromptSet("a", rows)).notes  # the last position of each: no matter
    told = asked_lines(mini, PromptSet("a", rows), "mean").notes
    assert "means are taken over what is as far from the end" in told[0] and "Fewer than 5 prompts" in told[1]
    short = [Row(r.prompt, r.target, r.distractor, r.line, abc=r.prompt.replace(" a ", " ")) for r in rows]
    told = asked_lines(mini, PromptSet("a", tuple(short)), "from").notes
    assert told[-1].startswith("Lines 2, 3 and 4: the partner has another length")


def test_a_set_is_a_table_or_a_file(mini):
    from_file = visit.head_question(mini, read_prompts(CSV, "a.csv"))
    frame = pd.DataFrame([vars(row) for row in read_prompts(CSV, "a.csv").rows])
    as_table = visit.head_question(mini, frame.assign(pos=[np.nan, -1, None]))
    assert (from_file["effect"] == as_table["effect"]).all()
    with pytest.raises(VisitError, match="column prompt"):
        visit.head_question(mini, frame.drop(columns="prompt"))
    with pytest.raises(VisitError, match="at least one prompt"):
        visit.head_question(mini, [])
    with pytest.raises(VisitError, match="nodes must be one of heads, neurons, layers"):
        visit.head_question(mini, frame, nodes="values")


def test_a_line_without_numbers_is_left_out_and_told(monkeypatch):
    model = models.small("llama")
    run = HeadRun(model, asked_lines(model, as_set(ROWS)))
    real = head_sets.answer_effects

    def broken(question, *rest):
        numbers, before = real(question, *rest)
        return numbers * (np.nan if question.acts.token_ids[0] == 7 else 1), before

    monkeypatch.setattr(head_sets, "answer_effects", broken)
    table = set_table(model, run.asked, finish(run), "zero")
    assert table.attrs["prompts"] == 3 and table["influence"].notna().all()
    assert table.attrs["left_out"] == ["line 2: the model computes no numbers (NaN or infinite) for it"]


def test_roles_follow_their_criteria():
    row = {"attends_target": 0.6, "attends_distractor": 0.1, "copies": 0.9, "suppresses": 0.0, "contribution": 1.0,
           "effect": 0.0}  # fmt: skip
    assert set_role(row) == "mover"
    assert set_role({**row, "copies": 0.4}) is None and set_role({**row, "contribution": 0.05}) is None
    assert set_role({**row, "copies": 0.0, "suppresses": 0.9, "contribution": -1.0}) == "negative mover"
    away = {**row, "attends_target": 0.0, "attends_distractor": 0.6, "copies": 0.0}
    assert set_role({**away, "suppresses": 1.0}) == "suppressor"
    assert set_role({**away, "contribution": 0.01, "effect": -0.5}) == "inhibitor"
    assert set_role({**away, "contribution": 0.01, "effect": -0.2}) is None


def test_looks_are_the_patterns_own(mini):
    rows = read_prompts(CSV, "a.csv").rows
    table = visit.head_question(mini, PromptSet("a", rows)).set_index("node")
    found = []
    for row in rows:
        acts = visit.capture(mini, row.prompt)
        word = mini.token_id(row.target)
        at = [i for i in range(1, len(acts.token_ids) - 1) if acts.token_ids[i] == word]
        found.append(float(acts.pattern[4, 1, -1, at].max()))
    assert table.loc["L4.head1", "attends_target"] == pytest.approx(np.mean(found), rel=1e-6)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_the_difference_of_two_sets_is_welchs_of_their_single_maps(name):
    model = models.small(name)
    sides = ROWS[:2], [*ROWS[2:], Row([7, 9, 31, 70], 12, 5, line=5)]
    sums = [finish(HeadRun(model, asked_lines(model, as_set(rows)))) for rows in sides]
    found = head_sets.set_difference(model, *sums).set_index("node")
    effects = [single_maps(model, rows)[0][:, 2] for rows in sides]
    nodes = single_maps(model, ROWS[:1])[1][0]["node"]
    means, errors = ([side.mean(0) for side in effects], [side.var(0, ddof=1) / len(side) for side in effects])
    free = sum(errors) ** 2 / sum(e**2 / (len(side) - 1) for e, side in zip(errors, effects, strict=True))
    half = np.array([student(max(1, int(n))) for n in free]) * np.sqrt(sum(errors))
    expected = {"effect_a": means[0], "effect_b": means[1], "effect": means[1] - means[0],
                "effect_low": means[1] - means[0] - half, "effect_high": means[1] - means[0] + half}  # fmt: skip
    for column, numbers in expected.items():
        assert found.loc[nodes, column].to_numpy() == pytest.approx(numbers, rel=1e-7, abs=1e-10), column
    certain = (found["effect_low"] > 0) | (found["effect_high"] < 0)
    assert certain.tolist() == sorted(certain, reverse=True), "those that are sure stand first"


def test_a_logit_and_a_difference_of_logits_are_not_subtracted():
    """ioi less plain gave numbers with bands: of target − distractor less the target's logit above the mean."""
    model = models.small("gpt2")
    bare = [Row(row.prompt, row.target, line=row.line) for row in ROWS[:2]]
    a, b = (finish(HeadRun(model, asked_lines(model, as_set(rows)))) for rows in (ROWS[:2], bare))
    with pytest.raises(VisitError, match="both with distractors, or both without"):
        head_sets.set_difference(model, a, b)
