"""The memory page: its script without a browser, the sentences, the drawing of one head, and the clicks."""

from __future__ import annotations

import json

import models
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

import visit
from visit import VisitError, capture
from visit.analyses.attention_memory import head_memory, head_meta, head_summary
from visit.analyses.heads import _head_readings, head_map
from visit.analyses.overlap import alignment_scores
from visit.app.state import DEFAULT_PROMPT
from visit.exact.question import ask
from visit.narrate.memory import FINDINGS, figure_findings, head_graph, memory_story, strongest_head

NAMES = "When Mary and John went to the store, John gave a drink to"
PROMPT = [5, 17, 3, 99, 41, 17, 8]


def start(**params: str) -> AppTest:
    app = AppTest.from_file("../../streamlit_app.py", default_timeout=60)
    for name, value in params.items():
        app.query_params[name] = value
    return app.run().switch_page("pages/memory.py").run()


def rows(app: AppTest) -> pd.DataFrame:
    return next(d.value for d in app.dataframe if "pattern" in d.value)


def test_the_page_opens_on_the_head_that_pushes_hardest():
    app = start()
    assert not app.exception and not app.error and not app.warning
    assert any(s.value.startswith("L4 H1 at position 7") for s in app.header)
    table = rows(app)
    assert table["source"].iloc[0] == "·Japan (3)" and "·Tokyo" in table["value"].iloc[0]
    assert table["source"].iloc[-1] == "what the sum misses" and table["moved"].iloc[-1] < 1e-3
    assert table["share"].iloc[:-1].sum() == pytest.approx(1, abs=1e-5)


def test_a_newcomer_finds_the_name_mover_by_opening_the_page():
    """Choose the example (two clicks), open the page (the third): its first line names the head and the name."""
    app = AppTest.from_file("../../streamlit_app.py", default_timeout=60).switch_page("pages/flow.py")
    app.session_state["examples"] = True  # the list is opened
    app.run().button(key="example Two names: to whom does John give?").click().run()
    app.switch_page("pages/memory.py").run()
    assert not app.exception and not app.error
    told = next(c.proto.json for c in app.get("bidi_component") if "pushes towards" in c.proto.json)
    text = "".join(piece for sentence in json.loads(told)["sentences"] for piece, _ in sentence)
    assert "L4 H1" in text and "takes this from “·Mary” (position 1" in text
    assert rows(app)["source"].iloc[0] == "·Mary (1)" and rows(app)["value"].iloc[0].startswith("·Mary")


def test_the_address_names_head_order_and_source():
    where = {"prompt": NAMES, "head": "L3.head5", "order": "source_pos", "sink": "aside"}
    app = start(gain="folded", source="3", opened="life", measure="rank", **where)
    assert not app.exception and not app.error and not app.warning
    table = rows(app)
    assert table["source"].tolist()[:4] == ["·Mary (1)", "·and (2)", "·John (3)", "·went (4)"]
    assert "negated" in table.columns, "this head pushes “ Mary” away"
    assert any(e.label.startswith("The life of a memory value: what ·John") for e in app.expander)
    assert next(b.value for b in app.selectbox if b.label == "Source token") == 3
    plain = rows(start(**where))
    assert plain["key"].tolist() != table["key"].tolist() and plain["value"].tolist() == table["value"].tolist()


def never(*_given, **_named):
    raise AssertionError("computed though nobody looks at it")


def test_what_is_folded_away_is_not_computed(monkeypatch):
    """By default: the numbers of all heads, the words of one. Lists, lives and figures are read when opened."""
    prompt = "The capital of Norway is the city of"
    with monkeypatch.context() as patch:
        for place in ("analyses.heads._head_readings", "analyses.attention_memory.value_life",
                      "analyses.overlap.alignment_scores", "narrate.memory.head_graph",
                      "figures.heads.pattern_multiples"):  # fmt: skip
            patch.setattr(f"visit.{place}", never)
        app = start(prompt=prompt)
        assert not app.exception and len(rows(app)) == 9 and rows(app)["value"].iloc[:-1].notna().all()
        for name in PARTS:
            broken = start(prompt=prompt, opened=name)
            assert broken.exception or broken.error, f"{name}: what it shows is computed now"
    app = start(prompt=prompt, opened=",".join(PARTS))
    assert not app.exception and len([d for d in app.dataframe if "words" in d.value]) == 1
    assert any("(Fig. 3)" in m.value for m in app.markdown)
    assert any("What any head would write if it looked at" in c.value for c in app.caption)


PARTS = ("heads-list", "head-picture", "pattern", "life", "paper-figures")


@pytest.mark.parametrize("measure", ["intersection_final", "rank", "norm"])
def test_a_measure_that_rests_on_words_has_them_read(measure, monkeypatch):
    wanted, reads = measure != "norm", []
    monkeypatch.setattr("visit.analyses.heads._head_readings", lambda *given: reads.append(1) or _head_readings(*given))
    app = start(measure=measure, prompt=f"The capital of Italy is the city of {measure}")
    assert not app.exception and bool(reads) == wanted


def test_a_head_that_does_not_exist_is_said():
    app = start(head="L99.head3")
    assert not app.exception and not app.error and any("does not exist here" in i.value for i in app.info)


@pytest.mark.parametrize("prompt", ["x", "🙂 שלום <b>x</b> **y** $z$", "a " * 120, "<script>alert(1)</script>\x01"])
def test_any_prompt_simply_works(prompt):
    app = start(prompt=prompt)
    assert not app.exception and not app.error


def test_long_prompts_are_paged_and_every_page_keeps_its_numbers():
    app = start(prompt="the city of" + " the city of" * 39, order="source_pos")
    assert not app.exception and not app.error
    assert len(rows(app)) == 41 and rows(app)["value"].iloc[:-1].notna().all()
    assert next(n for n in app.number_input if n.label.startswith("Page")).max >= 3


# ---- sentences and drawing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", models.NAMES)
def test_the_sentences_say_what_the_tables_hold(name):
    model = models.small(name)
    acts = capture(model, PROMPT)
    heads = head_map(model, acts)
    for node in (strongest_head(heads), heads.loc[heads["contribution"].idxmin(), "node"]):
        layer, head = (int(n) for n in node[1:].split(".head"))
        summary = head_summary(model, acts, layer, head)
        table = head_memory(model, acts, layer, head)
        told = memory_story(summary, table, None, model.d_vocab)
        text = " ".join("".join(piece for piece, _ in sentence) for sentence in told)
        push = "away from" if summary["contribution"] < 0 else "towards"
        assert f"pushes {push}" in text and f"rank {summary['rank']:,}" in text
        best = (-1 if summary["contribution"] < 0 else 1) * table["contribution"].iloc[:-1]
        assert f"(position {int(best.idxmax())}, pattern" in text
        assert ("turned round" in text) == (summary["contribution"] < 0)


def test_one_heads_drawing_is_that_head_of_the_flow_graph():
    model = models.small("llama")
    acts = capture(model, PROMPT)
    graph = head_graph(model, acts, 1, 2, values=3)
    assert set(graph.nodes.loc[graph.nodes["kind"] == "head", "id"]) == {"L1.head2"}
    values = graph.nodes[graph.nodes["kind"] == "value"]
    table = head_memory(model, acts, 1, 2).set_index("source_pos")
    assert len(values) == 3
    for row in values.to_dict("records"):
        true = table.loc[row["source_pos"]]
        assert row["contribution"] == pytest.approx(true["contribution"], rel=1e-9)
        assert row["tokens"] == true["tokens"] and row["coefficient"] == pytest.approx(true["pattern"])
    with pytest.raises(VisitError, match="0 to 3"):
        head_graph(model, acts, 1, 9)


def test_the_findings_are_the_means_of_the_scores():
    model = models.small("gpt2")
    acts = capture(model, PROMPT)
    scores = alignment_scores(model, acts)
    said = figure_findings(scores)
    mean = scores[(scores["figure"] == 3) & (scores["other"] == "attn_out")]["score"].mean()
    assert set(said) == set(FINDINGS) and f"{mean:.2f} with attn_out for the three longest" in said[3]


def test_meta_says_what_the_tables_are_of():
    model = models.small("gpt2")
    acts = capture(model, PROMPT)
    summary = head_summary(model, acts, 0, 1, distractor=9)
    meta = ask(model, acts, -1, None, 9).meta | head_meta(model, summary)
    assert meta["ledger"]["holds"] and meta["position"] == 6 and meta["distractor"]["id"] == 9
    assert meta["head"]["node"] == "L0.head1" and {"model", "revision", "versions", "prompt"} <= set(meta)


def test_the_public_name():
    assert visit.head_memory is head_memory


def test_the_list_of_heads_has_influence_beside_contribution_and_the_map_alone_computes_none():
    app = AppTest.from_file("../../streamlit_app.py", default_timeout=60)
    app.query_params["opened"] = "heads-list"
    app.run().switch_page("pages/memory.py").run()
    assert not app.exception and not app.error
    listed = next(d.value for d in app.dataframe if "influence" in d.value)
    model = visit.load_model("visit-mini")
    found = visit.influence(model, visit.capture(model, DEFAULT_PROMPT)).set_index("node")["influence"]
    for head, number in zip(listed["head"], listed["influence"], strict=True):
        assert number == pytest.approx(found[head.replace(" H", ".head")], rel=1e-4, abs=1e-6)
