"""A recording gives back what was computed: the same tables, the same drawing, without the model and without torch."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from models import small
from recordings import FRANCE, JAPAN, blocking, recorded, tampered, tiny, use_all

import visit
from visit.analyses import attention_memory, divergence, graph_difference, heads, neurons, norms, overlap, overview
from visit.analyses.token_alignment import pair
from visit.drawing.pair import difference_picture
from visit.errors import NotRecorded
from visit.exact.ledger import model_ledger
from visit.exact.question import ask
from visit.files import recording_tables
from visit.files.flow_page import flow_svg
from visit.files.recorded_values import (
    PATTERN_STEP,
    StoredValues,
    WrittenValues,
    from_plain,
    read_table,
    to_plain,
    write_table,
)
from visit.files.recording import load_recording
from visit.models.tokens import Message
from visit.narrate.comparison import contrast_parts
from visit.narrate.flow import gathered, story_of

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def mini():
    return visit.load_model("visit-mini")


@pytest.fixture(scope="module")
def acts(mini):
    return visit.capture(mini, JAPAN)


@pytest.fixture(scope="module")
def recording():
    return load_recording(recorded())


def same(found: pd.DataFrame, live: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(found, live.reset_index(drop=True), check_exact=True)


def test_every_table_is_exactly_the_one_that_was_computed(recording, mini, acts):
    run, target = recording.runs[0], int(acts.logits[-1].argmax())
    about = (7, target, None)
    memory = attention_memory.head_memory(mini, acts, 4, 1, *about, k=5)
    live = {
        "lens_map": overview.lens_map(mini, acts, target),
        "heads": heads.head_map(mini, acts, *about, influence=True),
        "life 3": attention_memory.value_life(mini, acts, 3, target, pos=7),
        "alignment": overlap.alignment_scores(mini, acts, 7),
        "norm ln1 5": norms.token_shift(mini, acts, 5, "ln1", 7, target),
        "norm final": norms.token_shift(mini, acts, None, "final", 7, target),
        "norm layers": norms.target_shifts(mini, acts, 7, target),
        "neurons 5": neurons.active_neurons(mini, acts, 5, 7, top=30, target=target),
        "effects": visit.effects(mini, acts, "heads", 7, target),
    }
    for key, table in live.items():
        same(run.result(key), table)
    summary, rows = run.result("memory L4.head1")
    same(rows, memory)
    assert summary == attention_memory.head_summary(mini, acts, 4, 1, *about)
    assert str(run.result("effects").attrs) == str(live["effects"].attrs)
    facts = gathered(mini, acts, *about)
    assert run.result("story") == story_of(facts) == story_of(run.result("facts"))
    assert run.result("moves") == overview.block_moves(mini, acts, *about)
    last = run.result("predictions").query("pos == 7").reset_index(drop=True)
    same(last[["token", "id", "prob"]], overview.predictions(mini, acts, 7))
    assert last["target_prob"][0] == pytest.approx(run.result("lens_map")["prob"].iloc[-1], rel=1e-5)


def test_what_is_asked_of_the_prompt_is_there(recording, mini, acts):
    run = recording.runs[0]
    assert (run.prompt, run.token_ids, run.tokens) == (JAPAN, acts.token_ids, acts.tokens)
    assert run.words[run.target] == " Tokyo" and run.message is None and run.distractor is None
    assert recording.prompts == (JAPAN, FRANCE) and recording.meta["note"] == "of a test"
    assert recording.model.n_layers == mini.n_layers and recording.model.family is mini.family
    same(recording.ledger, model_ledger(mini))


def test_a_pattern_is_right_to_half_a_step(recording, acts):
    live = acts.pattern.numpy()
    assert recording.runs[0].pattern.shape == live.shape
    assert np.abs(recording.runs[0].pattern - live).max() <= PATTERN_STEP / 2 + 1e-7


def test_the_drawing_of_a_recorded_graph_is_the_live_one(recording, mini, acts):
    live = visit.build_flow_graph(mini, acts)
    found = recording.graph
    assert list(found.by_id.values()) == list(live.by_id.values()) and found.links == live.links
    for detail in ("states", "words", "everything"):
        assert visit.draw(found, detail) == visit.draw(live, detail)
    assert flow_svg(found, "dark") == flow_svg(live, "dark")
    assert {type(key) for key in found.meta["windows"]} <= {int} and found.meta["keep"] == live.meta["keep"]


def test_two_prompts_are_compared_as_they_were(recording, mini, acts):
    other = visit.capture(mini, FRANCE)
    pairing = pair(mini, acts, mini, other)
    graphs = [visit.build_flow_graph(mini, run) for run in (acts, other)]
    live = visit.compare(*graphs, pairing)
    found = recording.pair.result("compare")
    assert recording.pair.result("pairing") == pairing and found.pairs == live.pairs and found.links == live.links
    assert found.meta["counts"] == live.meta["counts"]
    for name, table in live.tables.items():
        same(found.tables[name], table)
    one, two = (visit.draw(difference_picture(both)[0], "words") for both in (found, live))
    assert one == two
    apart = divergence.part(mini, acts, mini, other, pairing)
    same(recording.pair.result("parting"), apart)
    asked = [graph_difference._question_of(graph) for graph in graphs]
    singles = graph_difference.single_parts(*asked, pairing)
    same(recording.pair.result("single parts"), singles)
    assert recording.pair.result("contrast") == contrast_parts(live, apart, singles)


def test_what_is_not_recorded_is_said(recording):
    with pytest.raises(NotRecorded, match=r"'life 99' is not in this recording"):
        recording.runs[0].result("life 99")


def test_all_keys_can_be_asked_for_and_all_tables_have_names(recording):
    run = recording.runs[0]
    keys = list(run.results)
    assert {"memory L0.head0", "norm ln2 7", "neurons 0", "life 0", "graph"} <= set(keys)
    assert {"nodes", "edges", "b/nodes", "pair/changes", "memory", "ledger"} <= set(recording.tables)
    memory = recording.tables["memory"]
    assert memory["of"].nunique() == 64 and len(memory) == 64 * 9


READ = (
    blocking("torch", "transformers", "streamlit")
    + """import visit
recording = visit.load_recording(sys.argv[1])
for run in recording.runs:
    for key in run.results:
        run.result(key)
assert recording.tables and recording.pair.result("compare").tables and recording.runs[0].pattern.shape[0] == 8
from visit.narrate.flow import story_of
story_of(recording.runs[0].result("facts"))
from visit.files.flow_page import difference_file, flow_html
flow_html(recording.graph)
difference_file(recording.pair.result("compare"), "svg")
sys.stdout.write(visit.draw(recording.graph, "words"))
"""
)


def test_a_recording_is_read_and_drawn_where_there_is_no_torch(tmp_path, mini, acts):
    (tmp_path / "run.visit").write_bytes(recorded())
    done = subprocess.run([sys.executable, "-c", READ, str(tmp_path / "run.visit")], capture_output=True, cwd=ROOT)
    assert not done.returncode, done.stderr.decode()
    assert done.stdout.decode() == visit.draw(visit.build_flow_graph(mini, acts), "words")


def test_edits_layers_and_pruning_are_those_that_were_asked_for(mini):
    out, edits = io.BytesIO(), [visit.Edit("L4.head1")]
    keep = visit.Keep(heads=(2, 1), values=1, mlp_neurons=0.5, by="influence", pin=("L4.head1",))
    visit.save_recording(out, mini, JAPAN, distractor=" Paris", layers="3-5", keep=keep, edits=edits, memory=2)
    found = load_recording(out.getvalue())
    live = visit.build_flow_graph(
        mini, visit.capture(mini, JAPAN, edits=edits), layers="3-5", distractor=" Paris", keep=keep
    )
    assert visit.draw(found.graph, "everything") == visit.draw(live, "everything")
    assert found.meta["edits"][0]["node"] == "L4.head1" and "influence" in found.graph.nodes
    assert len([key for key in found.runs[0].results if key.startswith("memory ")]) == 2


@pytest.mark.parametrize("values", [
    pd.DataFrame({"a": [0.1, np.nan], "b": pd.array([1, None], "Int64"), "c": [True, False], "d": ["x", None]}),
    pd.DataFrame({"a": [["x", "y"], None, []], "b": [[1.0], [], None]}, dtype=object),
    pd.DataFrame({"a": pd.Series([1, "x", None], dtype=object), "b": [2**40, -1, 0], "c": [1e-40, 1 / 3, 1e300]}),
    pd.DataFrame({"a": pd.Series([], dtype=float), "b": pd.Series([], dtype="str"), "c": pd.Series([], dtype=object)}),
    pd.DataFrame({"lone": pd.Series(["\udce9", "\u2028<script>"], dtype=object), "big": [70000, 1]}),
])  # fmt: skip
def test_a_column_comes_back_with_its_type_and_every_bit(values):
    out = WrittenValues()
    layout = write_table(out, "t", values)
    pd.testing.assert_frame_equal(
        read_table(StoredValues(list(out.texts), out.arrays), "t", layout), values, check_exact=True
    )


def test_what_stands_as_json_comes_back_as_it_was():
    value = {"a": (1, None, [True, "x"]), 3: {"$": 1.5}, "b": {}, "c": {1: (2,)}}
    assert from_plain(to_plain(value)) == value
    assert np.isnan(from_plain(to_plain({"e": float("nan")}))["e"])
    with pytest.raises(TypeError, match="does not hold object"):
        to_plain(object())


# ---- replayed --------------------------------------------------------------------------------------------------------
def test_a_recording_of_this_model_holds(recording, mini):
    found = recording.check(mini, k=30, seed=3)
    counts = found["kind"].value_counts()
    assert (counts["node"], counts["edge"], counts["reading"], counts["pattern"]) == (46, 46, 5, 2)
    assert found.attrs["holds"] and found.attrs["same_model"] and found.attrs["largest"] < 1e-5
    assert set(found["run"].dropna()) == {0, 1} and found["run"].isna().sum() > 32  # of both
    kinds = {recording_tables.kind_of(key) for run in recording.runs for key in run.results}
    told = {recording_tables.kind_of(key) for key in found.loc[found["run"] == 0, "node"]}
    assert kinds - told == {"graph", "facts"}, "a kind of table was not computed again"
    assert set(recording.check(mini, 8, seed=1)["node"]) != set(recording.check(mini, 8, seed=2)["node"])


def test_another_model_is_told(recording):
    with pytest.raises(visit.VisitError, match="Load the model that it is of"):
        recording.check(small("gpt2"))


def test_an_edited_number_is_told_by_the_replay(mini):
    """Whoever edits a number can make the sums fit again, and cannot make the model compute it."""

    def edit(content, arrays):
        norms = arrays["a/graph/nodes/norm"].copy()
        norms[:] *= 1.02
        arrays["a/graph/nodes/norm"] = norms

    found = load_recording(tampered(edit)).check(mini, 20)
    assert not found.attrs["holds"] and (found.loc[~found["holds"], "run"] == 0).all()
    assert set(found.loc[~found["holds"], "number"]) == {"norm"}


TABLES = {
    "predictions": "target_prob", "heads": "contribution", "lens_map": "prob", "norm ln1 3": "after_prob",
    "norm layers": "before_prob", "memory L4.head1": "pattern", "neurons 2": "coefficient", "life 1": "norm",
    "effects": "d_logit",
}  # fmt: skip


@pytest.mark.parametrize(("key", "column"), TABLES.items())
def test_an_edited_number_of_a_table_and_a_lost_part_of_it_are_told(key, column, recording, mini):
    run = recording.runs[0]
    question = ask(mini, visit.capture(mini, run.token_ids), run.pos, run.target, run.distractor)
    then, now = recording_tables.recorded_table(run, key), recording_tables.table_again(question, key, None, run)
    assert recording_tables.table_difference(key, then, now, 1e-4)["holds"]
    edited = then.copy()
    edited.loc[1, column] += 0.01
    told = recording_tables.table_difference(key, edited, now, 1e-4)
    assert (told["number"], told["holds"]) == (column, False)
    lost = recording_tables.table_difference(key, then, now.iloc[: len(now) // 2], 1e-4)
    assert (lost["number"], lost["holds"]) == ("rows", False)


def test_edited_edges_and_probabilities_are_told(mini):
    def edit(content, arrays):
        arrays["a/graph/edges/contribution"] = arrays["a/graph/edges/contribution"] * 1.1
        arrays["b/predictions/prob"] = arrays["b/predictions/prob"] * 0.9

    found = load_recording(tampered(edit)).check(mini, 20)
    told = found[~found["holds"]]
    assert set(zip(told["run"], told["kind"], strict=True)) == {(0, "edge"), (1, "table")}
    assert list(told.loc[told["run"] == 1, "node"]) == ["predictions"]


def test_an_edited_sentence_is_told(mini):
    def edit(content, arrays):
        story = content["runs"][0]["results"]["story"]["value"]
        text = json.dumps(story)
        content["runs"][0]["results"]["story"]["value"] = json.loads(text.replace("largest push", "smallest push"))
        assert "largest push" in text

    told = load_recording(tampered(edit)).check(mini, 2)
    assert list(told.loc[~told["holds"], "node"]) == ["story"]


def test_what_was_edited_of_patterns_pairs_and_sentences_is_told():
    """One thing of each kind is changed; every one of them is named, and nothing else."""

    def edit(content, arrays):
        pattern = arrays["a/pattern"].copy()
        pattern[-1] += 99  # of 65,535 steps
        changed = {"a/pattern": pattern}
        tables = ("pair/parting/js", "pair/single parts/contribution_a", "pair/compare/answers/prob_b",
                  "b/alignment/score", "b/facts/states/top_prob", "b/head graph {}/nodes/prob")  # fmt: skip
        graphs = [name for name in content["runs"][1]["results"] if name.startswith("head graph")]
        names = {name.format(graph.removeprefix("head graph ")) for name in tables for graph in graphs}
        changed |= {name: (1 - arrays[name]) * 0.5 for name in names}
        nodes = {name: arrays[name] * 1.02 for name in arrays if name in
                 ("pair/compare/b/nodes/norm", "pair/compare/a/edges/contribution")}  # fmt: skip
        arrays |= changed | nodes
        content["runs"][0]["results"]["moves"]["value"]["of"][1][1] += 0.1
        words = (
            (content["runs"][0], "causes", "adds +", "adds −"),
            (content["pair"], "contrast", "hardest (+", "hardest (+9"),
        )
        for at, key, old, new in words:
            text = json.dumps(at["results"][key], ensure_ascii=False)
            assert old in text
            at["results"][key] = json.loads(text.replace(old, new))

    told = load_recording(tampered(edit, tiny)).check(small("gpt2"), 30)
    told = told[~told["holds"]]
    parts = {(row["kind"], row["node"].split(" L")[0], row["number"]) for row in told.to_dict("records")}
    assert parts == {
        ("pattern", "L2.head3 from 2 to 2", "pattern"), ("table", "parting", "js"), ("table", "alignment", "score"),
        ("table", "single parts", "contribution_a"), ("table", "answers", "prob_b"), ("table", "states", "top_prob"),
        ("table", "head graph", "prob"), ("table", "moves", "moved"), ("node", "B:", "norm"),
        ("edge", "A:", "contribution"), ("reading", "causes", "words"), ("reading", "contrast", "words"),
    }  # fmt: skip


def test_who_shows_what_and_which_tokens_stand_for_each_other_is_compared():
    def edit(content, arrays):
        content["pair"]["results"]["pairing"]["value"][1][2] = "replaced"
        del content["pair"]["results"]["compare"]["added"]["a"][:4]

    told = load_recording(tampered(edit, tiny)).check(small("gpt2"), 2)
    assert {("alignment", "pairs"), ("table", "status")} <= set(
        told.loc[~told["holds"], ["kind", "number"]].itertuples(index=False, name=None)
    )


EDITS = [
    visit.Edit("L0.head1", "scale", factor=0.5),
    visit.Edit("L1.head2", "from", source=[3, 9, 4, 1]),
    visit.Edit("L1.mlp_value5", "mean", source=[[3, 1, 4, 2], [2, 7, 1, 8], [1, 1, 2, 3]], pos=(1, 3)),
    visit.Edit("L2.attn_out", "add", source=([3, 1], [4, 1]), factor=2.0, pos=-1),
    visit.Edit("L0.head0.link1.renormalised", "from", source=[3, 9, 4, 1]),
    visit.Edit("L2.head3", "mean"),
]


def test_an_edited_run_is_checked_with_its_edits():
    """Whatever an edit took from elsewhere is in the file; one of its numbers changed, and the run is another."""
    out, model = io.BytesIO(), small("gpt2")
    visit.save_recording(out, model, [3, 1, 4, 1], target=9, memory=1, edits=EDITS)
    found = load_recording(out.getvalue()).check(model, 8)
    assert found.attrs["holds"] and found.attrs["largest"] < 1e-5

    def without(content, arrays):
        del arrays["a/edits/1"]

    def factor(content, arrays):
        content["runs"][0]["results"]["graph"]["meta"]["edits"][0]["factor"] = 0.6

    def value(content, arrays):
        arrays["a/edits/3"] = arrays["a/edits/3"] + np.float32(0.2)

    def short(content, arrays):
        arrays["a/edits/1"] = arrays["a/edits/1"][1:]

    for change in (factor, value):
        assert not load_recording(tampered(change, out.getvalue)).check(model, 1).attrs["holds"]
    for change, why in ((without, "Record it anew"), (short, "edit of 'L1.head2' has")):
        with pytest.raises(visit.VisitError, match=why):
            load_recording(tampered(change, out.getvalue)).check(model, 2)


@pytest.mark.parametrize(("one", "two", "alike"), [
    ("L4 H1 adds +2.31, 99.4 %", "L4 H1 adds +2.32, 99.5 %", True), ("99.4 %", "12.1 %", False),
    ("L4 H1 adds", "L4 H2 adds", False), ("rank 23,801", "rank 23,805", True), ("rank 3", "rank 2", False),
    ("−0.52", "+0.52", False), ("position 7.", "position 7.", True), ("Tokyo", "Osaka", False),
    ("1e-07", "9e-07", False),
])  # fmt: skip
def test_sentences_are_alike_but_for_the_last_digit(one, two, alike):
    assert recording_tables.told_alike(one, two, 1e-6) is alike


def test_one_huge_number_does_not_hide_the_others(mini):
    def edit(content, arrays):
        norms = arrays["a/graph/nodes/norm"] * 1.02
        norms[0] = 1e12
        arrays["a/graph/nodes/norm"] = norms

    assert (~load_recording(tampered(edit)).check(mini, 20)["holds"]).sum() > 5


def test_an_edited_word_is_told_by_the_replay(mini):
    def edit(content, arrays):
        content["texts"][content["texts"].index(" Tokyo")] = " Osaka"

    found = load_recording(tampered(edit)).check(mini, 60)
    told = found[~found["holds"]]
    told = told[told["kind"] == "node"]
    assert len(told) and set(told["recorded"]) == {" Osaka"} and set(told["replayed"]) == {" Tokyo"}


@pytest.mark.parametrize("name", ["gpt_neo", "neox", "gemma2", "olmo2", "opt-without-final-norm"])
def test_every_kind_of_block_is_recorded_and_drawn_alike(name):
    """Parallel blocks, norms after a sub-layer, windows, rotation: in float64, which keeps its digits."""
    model, out = small(name), io.BytesIO()
    visit.save_recording(out, model, [3, 1, 4, 1, 5], target=9, memory=3, effects=True)
    found = load_recording(out.getvalue())
    use_all(found)
    live = visit.build_flow_graph(model, visit.capture(model, [3, 1, 4, 1, 5]), target=9)
    assert list(found.graph.by_id.values()) == list(live.by_id.values())
    assert visit.draw(found.graph, "everything") == visit.draw(live, "everything")
    assert found.check(model, 10).attrs["largest"] < 1e-12


@pytest.mark.parametrize(("name", "loads"), [
    ("visit-mini", "visit-mini"), ("smollm2", "smollm2"), ("openai-community/gpt2", "openai-community/gpt2"),
    ("/home/somebody/secret/gpt2", None), ("C:\\models\\x.gguf", None),
])  # fmt: skip
def test_a_recording_names_no_folder_of_the_machine_that_made_it(name, loads):
    model, out = replace(small("gpt2"), name=name), io.BytesIO()
    visit.save_recording(out, model, [3, 1, 4], memory=1)
    found = load_recording(out.getvalue())
    assert found.model.loads == loads and "somebody" not in f"{found.meta}{found.graph.meta}{found.model}"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_model_of_half_precision_is_recorded_and_holds(dtype):
    model, out = visit.load_model("visit-mini", dtype=dtype), io.BytesIO()
    visit.save_recording(out, model, JAPAN, memory=1)
    found = load_recording(out.getvalue())
    use_all(found)
    assert found.meta["dtype"] == dtype and found.check(model).attrs["holds"]


def test_a_chat_message_is_recorded_as_it_was_typed():
    model, out = small("llama"), io.BytesIO()
    model.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    try:
        visit.save_recording(out, model, visit.chat_prompt(model, "Hello", "Be brief"), memory=1)
    finally:
        model.tokenizer.chat_template = None
    assert load_recording(out.getvalue()).runs[0].message == Message("Hello", "Be brief")


def test_a_run_through_a_fitted_lens_comes_back_with_its_words(mini, acts):
    lens, out = visit.fit_lens(mini, tokens=600), io.BytesIO()
    visit.save_recording(out, mini, JAPAN, lens=lens, carry_parts=True, memory=1)
    found, run = load_recording(out.getvalue()), load_recording(out.getvalue()).runs[0]
    live = visit.build_flow_graph(mini, acts, lens=lens, carry_parts=True)
    assert visit.draw(found.graph, "everything") == visit.draw(live, "everything")
    same(run.result("lens_map fitted"), visit.lens_map(mini, acts, lens=lens))
    same(run.result("lens_map"), visit.lens_map(mini, acts))
    assert run.result("facts").fitted and found.meta["lens"] == lens.about
    assert found.check(mini, 10, lens=lens).attrs["holds"]


@pytest.mark.parametrize(("prompt", "other"), [
    (JAPAN, "The capital of the country of Japan is the city of"), ("The", "A"), (JAPAN, JAPAN),
])  # fmt: skip
def test_prompts_of_any_lengths_are_recorded_together(mini, prompt, other):
    out, shares = io.BytesIO(), []
    visit.save_recording(out, mini, prompt, other, layers=[4], memory=1, told=lambda share, what: shares.append(share))
    found = load_recording(out.getvalue())
    use_all(found)
    assert [len(run.graph.meta["tokens"]) for run in found.runs] == [len(run.tokens) for run in found.runs]
    assert shares == sorted(shares) and (shares[0], shares[-1]) == (0, 1)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_a_recording_is_checked_with_a_model_of_another_type(recording, dtype):
    """As between a GPU and a laptop: what differs by no more than the coarser of both rounds holds, and it is said."""
    found = recording.check(visit.load_model("visit-mini", dtype=dtype), 60)
    assert found.attrs["holds"] and not found.attrs["same_model"], found[~found["holds"]]
