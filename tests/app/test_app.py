"""The app's script, run without a browser: what it shows, what it keeps, what it refuses."""

from __future__ import annotations

import json

import models
import pytest
import streamlit as st
from escapes import as_read
from streamlit.testing.v1 import AppTest

import visit
from visit.app import flow
from visit.app.cached_flow import st_whole_graph
from visit.app.state import DEFAULT_PROMPT
from visit.files.tables import to_json

APP = "../../streamlit_app.py"


def start(**params: str) -> AppTest:
    app = AppTest.from_file(APP, default_timeout=60).switch_page("pages/flow.py")
    for name, value in params.items():
        app.query_params[name] = value
    return app.run()


def drawn(app: AppTest) -> list[str]:
    """The reading, the map and the graph; what was measured meanwhile stands beside them or does not."""
    found = dict.fromkeys(c.proto.component_name for c in app.get("bidi_component"))
    return [name for name in found if name not in ("visit_tokens", "visit_enter", "visit_live", "visit_drop")]


def tokens(app: AppTest) -> dict:
    """What the box of tokens is given."""
    return next(d for c in app.get("bidi_component") if "tokens" in (d := json.loads(c.proto.json or "{}")))


def url(app: AppTest) -> dict[str, str]:
    return {k: v[0] if isinstance(v, list) else v for k, v in app.query_params.items()}


def test_the_page_opens_on_a_finished_example():
    app = start()
    assert not app.exception and not app.error
    assert app.text_area(key="w_prompt").value == DEFAULT_PROMPT
    assert app.sidebar.expander[0].label == "Numbers checked"
    assert [c.proto.component_name for c in app.get("bidi_component")] != []
    assert url(app) == {}


def test_pages_are_compiled_as_they_are_written(monkeypatch):
    """Streamlit's magic builds a syntax tree of every page, which Python 3.11.7 cannot do in two threads at once."""

    def two_at_once(*_):
        raise SystemError("AST constructor recursion depth mismatch")

    monkeypatch.setattr("streamlit.runtime.scriptrunner.magic.add_magic", two_at_once)
    app = start()
    assert not app.exception and drawn(app)


def test_a_new_prompt_runs_and_is_in_the_address():
    app = start()
    app.text_area(key="w_prompt").set_value("Lionel Messi plays the sport of").run()
    assert not app.exception and not app.error
    assert url(app) == {"prompt": "Lionel Messi plays the sport of"}
    box = tokens(app)
    assert box["label"] == "Tokens (6)" and box["following"][0][0] == "·football" and box["following"][0][3]


def test_a_link_opens_what_it_names():
    app = start(
        prompt="Buenos Aires is the capital of",
        target=" Argentina",
        layers="0-1",
        heads="2",
        pos="1",
        by="contribution",
    )
    assert not app.exception and not app.error
    assert app.text_input(key="w_target").value == " Argentina"
    assert app.text_input(key="w_layers").value == "0-1"
    assert tokens(app)["chosen"] == 1
    assert url(app)["layers"] == "0-1"


def test_a_hostile_link_opens_the_defaults_with_a_note():
    app = start(layers="<script>", pos="many", model="visit-mini", node="'><img>", heads="\x00")
    assert not app.exception and not app.error
    assert len(app.info) == 4 and all("link" in note.value for note in app.info)
    assert url(app) == {}


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("w_prompt", "", "empty"), ("w_prompt", "   ", "blank"), ("w_prompt", "word " * 700, "at most"),
    ],
)  # fmt: skip
def test_a_prompt_that_cannot_run_leaves_the_controls(key, value, says):
    app = start()
    app.text_area(key=key).set_value(value).run()
    assert not app.exception and len(app.error) == 1 and says in as_read(app.error[0].value)
    assert "Shown meanwhile" in as_read(app.error[0].value) and len(drawn(app)) == 3, "the last result stays"
    assert not app.status
    app.text_area(key=key).set_value("The capital of France is the city of").run()
    assert not app.error and not app.exception


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("w_target", "no such token here", "exactly one token"),
        ("w_distractor", "no such token here", "exactly one token"),
        ("w_layers", "99", "from 0 to"), ("w_layers", "abc", "Layers are written"), ("w_heads", "lots", "amount"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_said_beside_it_and_the_rest_stands(key, value, says):
    app = start()
    app.text_input(key=key).set_value(value).run()
    assert not app.exception
    said = [w.value for w in [*app.warning, *app.error]]
    assert len(said) == 1 and says in said[0]
    assert app.text_area(key="w_prompt").value == DEFAULT_PROMPT


def test_a_position_beyond_the_prompt_is_said_and_the_last_is_shown():
    app = start(pos="400")
    assert not app.exception and not app.error
    assert "0 to" in as_read(app.info[0].value) and tokens(app)["chosen"] == 7


@pytest.mark.parametrize("name", ["target", "distractor"])
def test_a_word_that_is_a_token_without_its_space_is_warned_of_and_can_have_it(name):
    app = start(**{name: "Paris"})  # a token of its own, as at the start of a text
    (said,) = [w.value for w in app.warning]
    assert f"The {name} “Paris” has no space before it" in as_read(said) and "·Paris" in said
    assert any("·Paris" in c.value for c in app.caption)
    folded = app.get("popover")
    assert folded and not any(one.warning for one in folded), "nobody sees it in a folded one"
    app.button(key=f"with_space_{name}").click().run()
    assert not app.warning and not app.exception
    assert getattr(app.session_state["visit"].state, name) == " Paris"


@pytest.mark.parametrize("prompt", ["The capital of Japan is the city of ", "The capital of Japan is the city of\n"])
def test_a_word_behind_white_space_may_have_none(prompt):
    app = start(prompt=prompt, target="Paris")
    assert not app.warning and not app.exception


def test_a_target_without_its_space_is_read_with_it():
    words = models.tokenizer()
    known = set(words.get_vocab())
    inside = next(w[1:] for w in sorted(known) if w.startswith("Ġ") and len(w) > 4 and w[1:] not in known)
    app = start(target=inside)
    assert not app.warning and any(f"Read as “·{inside}”" in c.value for c in app.caption)


@pytest.mark.parametrize(
    "prompt", ["<b>x</b> **bold** :red[x] $x$", "🙂 👩‍👩‍👧", "שלום עולם", "a\x01\x1bb", "one\ntwo", "x"]
)
def test_any_prompt_simply_works(prompt):
    app = start(prompt=prompt)
    assert not app.exception and not app.error


def test_a_folder_that_is_no_model_is_a_sentence(tmp_path):
    app = start(model=str(tmp_path))
    assert not app.exception and len(app.error) == 1 and "config.json" in as_read(app.error[0].value)
    assert app.sidebar.selectbox(key="w_model").value == "visit-mini" and len(drawn(app)) == 3
    assert url(app) == {}, "a link to what is shown, not to what could not be had"
    app.text_area(key="w_prompt").set_value("The capital of France is the city of").run()
    assert not app.error and not app.exception


def test_hosted_refuses_a_folder_in_the_link(monkeypatch, tmp_path):
    monkeypatch.setenv("VISIT_HOSTED", "1")
    app = start(model=str(tmp_path))
    assert not app.exception and not app.error
    assert "hosted" in as_read(app.info[0].value) and app.sidebar.selectbox(key="w_model").value == "visit-mini"


def test_a_selection_needs_no_forward_pass(monkeypatch):
    app = start()
    import visit.activations.forward

    def boom(*_args, **_kwargs):
        raise AssertionError("a forward pass")

    monkeypatch.setattr(visit.activations.forward, "capture", boom)
    app.text_input(key="w_values").set_value("3").run()
    assert not app.exception
    app.query_params["node"] = "L3.head2"
    app.run()
    assert not app.exception and app.session_state["visit"].state.graph.node == "L3.head2"


def test_a_selected_node_is_drawn_even_if_pruning_left_it_out():
    app = start(node="L2.head1.value0", heads="1", values="1", detail="2w")
    assert not app.exception and not app.error
    drawn = [c.proto.json for c in app.get("bidi_component") if "svg" in c.proto.json]
    assert len(drawn) == 1 and "L2.head1.value0" in drawn[0]


def test_pins_that_do_not_exist_here_are_said_and_left_out():
    app = start(pin="L99.head1,-L1.head2,L1.head3.value99")
    assert not app.exception and not app.error
    assert any("2 kept or hidden nodes" in c.value for c in app.caption)


def test_a_long_prompt_is_whole_and_its_line_breaks_stay():
    app = start(prompt="the city of\n" + " the city of" * 69)
    assert not app.exception and not app.error and app.text_area(key="w_prompt").value.startswith("the city of\n the")
    shown = tokens(app)["tokens"]
    assert len(shown) > 200 and [text for text, _, _, breaks in shown if breaks] == ["⏎"]
    app.text_area(key="w_prompt").set_value("one\ntwo").run()
    assert url(app)["prompt"] == "one\ntwo" and not app.exception


@pytest.fixture(autouse=True)
def fresh_caches():
    yield
    st.cache_data.clear()


def drawing(app: AppTest) -> dict:
    return next(d for c in app.get("bidi_component") if "svg" in (d := json.loads(c.proto.json or "{}")))


def test_only_open_blocks_are_taken_apart_and_a_node_of_a_folded_one_opens_its_block():
    app = start(detail="3w")
    assert {i["id"].split(".")[0] for i in drawing(app)["nodes"] if ".value" in i["id"]} == {"L3"}
    assert "Kept in block 3" in " ".join(c.value for c in app.caption)
    app = start(detail="3w", node="L1.head0.value2")
    assert not app.exception and app.session_state["visit"].levels[1] == "words"
    assert {i["id"].split(".")[0] for i in drawing(app)["nodes"] if ".value" in i["id"]} == {"L1", "L3"}
    app = start(detail="states")
    assert not app.exception and "No block is taken apart" in " ".join(c.value for c in app.caption)


def test_files_hold_the_whole_graph():
    model = visit.load_model("visit-mini")
    acts = visit.capture(model, DEFAULT_PROMPT)
    whole = visit.build_flow_graph(model, acts)
    about = (model.name, DEFAULT_PROMPT, whole.meta["position"], whole.meta["target"]["id"], None)
    found = st_whole_graph(*about, None, visit.Keep())
    assert found.nodes["id"].tolist() == whole.nodes["id"].tolist() and found.meta["shares"] == whole.meta["shares"]
    table = json.loads(to_json(*flow.graph_tables(found), flat=True))
    assert len(table["nodes"]) == len(whole.nodes)


def test_a_field_knows_its_value_also_when_the_message_that_sets_it_is_lost():
    """Streamlit drops what it has not sent when another run begins: an empty field would then answer."""
    app = start(heads="3", values="80 %", width="contribution", target="Paris", whole="1")
    assert app.text_input(key="w_heads").proto.default == "3" and app.text_input(key="w_values").proto.default == "80 %"
    assert app.text_input(key="w_target").proto.default == "Paris" and app.toggle(key="w_whole").proto.default
    width = app.selectbox(key="w_width").proto
    assert width.options[width.default] == "contribution"
    assert app.text_area(key="w_prompt").proto.default == DEFAULT_PROMPT


def test_influence_keeps_colours_and_widens_and_the_caption_says_its_share():
    app = start(by="influence", color="influence", width="influence", heads="2", layers="4", node="L4.head1")
    assert not app.exception and not app.error
    caption = next(c.value for c in app.caption if c.value.startswith("Every pill"))
    assert "by influence" in caption and "of the summed |influence| of all heads and MLP neurons" in caption
    data = next(d for c in app.get("bidi_component") if "facts" in (d := json.loads(c.proto.json or "{}")))
    assert data["legend"]["fill_title"].startswith("Fill: influence") and len(data["facts"]) == 7
    app.selectbox(key="w_by").set_value("norm")
    app.selectbox(key="w_color").set_value("rank")
    app.selectbox(key="w_width").set_value("norm").run()
    assert not any("influence" in c.value for c in app.caption)
