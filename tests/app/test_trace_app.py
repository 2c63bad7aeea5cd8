"""The Causal trace page: its subject as chips and text, what is traced at once or as a run, its cells, its mistakes."""

from __future__ import annotations

import gc
import json
import time
from types import SimpleNamespace
from weakref import ref

import pytest
from streamlit.testing.v1 import AppTest

import visit
from visit.app import cache
from visit.app import trace as page
from visit.app.address import parse, to_params
from visit.narrate.traces import trace_story

JAPAN = "The capital of Japan is the city of"


def start(**params: str) -> AppTest:
    app = AppTest.from_file("../../streamlit_app.py", default_timeout=120)
    for name, value in params.items():
        app.query_params[name] = value
    return app.run().switch_page("pages/trace.py").run()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    from visit.runs.worker import WORKER

    monkeypatch.setenv("VISIT_CACHE", str(tmp_path))
    WORKER.reset()
    yield
    WORKER.reset()


@pytest.fixture
def drawn(monkeypatch):
    """The grids that a page draws, and what a click on one calls, by the grid's name."""
    found = {}
    monkeypatch.setattr(page, "grid", lambda key, grid, take, *_, **__: found.update({key: (grid, take)}))
    return found


def texts(app: AppTest) -> str:
    told = " ".join(str(one.value) for one in [*app.markdown, *app.caption, *app.warning, *app.info])
    return told.replace("\\", "")  # without the signs that keep Markdown from reading it


def test_the_embedded_model_is_traced_at_once_and_told_in_the_library_s_words(drawn, monkeypatch):
    said = []
    monkeypatch.setattr(page, "sentences", lambda found, *_: said.extend(found))
    app = start(samples="2")
    assert not app.exception and not app.error
    table = visit.trace(visit.load_model("visit-mini"), JAPAN, "Japan", samples=2)
    assert ["".join(text for text, _ in one) for one in said] == trace_story(table)
    assert set(drawn) == {"trace_resid", "trace_attn_out", "trace_mlp_out"}
    assert "All four checks hold" in texts(app) and "2 samples of noise 3" in texts(app)
    cells = drawn["trace_resid"][0]
    assert cells.columns[3] == "* ·Japan" and len(cells.cells) == 8 * 8
    shades = {f"{hue}{round(20 * size)}" for hue, size in zip(cells.cells["hue"], cells.cells["strength"], strict=True)}
    lowered = any(step.startswith("n") for step in shades)
    assert any(step.startswith("n") for step, _ in cells.scale) == lowered, "every colour on screen is in the legend"


def test_words_are_made_unreadable_by_a_click_or_by_their_text(drawn):
    app = start(samples="1")
    (chips,) = app.button_group
    assert chips.value == [3] and "a guess" in chips.label
    chips.set_value([3, 4]).run()
    assert app.query_params["subject"] == "@3,4" and drawn["trace_resid"][0].columns[4] == "* ·is"
    assert "guess" not in app.button_group[0].label
    app.text_input(key="w_subject").set_value("capital").run()
    assert app.query_params["subject"] == "capital" and app.button_group[0].value == [1]
    app.button_group[0].set_value([]).run()  # none: the guess again
    assert "subject" not in app.query_params and app.button_group[0].value == [3] and not app.exception


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"subject": "Norway"}, "must stand in the prompt"), ({"subject": "apan"}, "whole tokens"),
        ({"subject": "@7"}, "brings the whole answer back"), ({"subject": "@99"}, "from 0 to 7"),
        ({"subject": "<b>x</b>"}, "must stand in the prompt"), ({"samples": "5000"}, "from 1 to 1,000"),
        ({"window": "9"}, "at most 8"),
    ],
)  # fmt: skip
def test_what_cannot_be_traced_is_said_and_something_is_shown(asked, says, drawn):
    app = start(**{"samples": "1", **asked})
    assert not app.exception and any(says in one.value for one in app.warning) and len(drawn) == 3


def test_numbers_that_are_none_are_left_out_of_the_address():
    state, notes = parse({"noise": "0", "cell": "x.1.2", "noise_seed": "-1", "window": "0"})
    assert len(notes) == 4 and state.trace.noise == 3.0 and to_params(state) == {}
    state, notes = parse({"noise": "1.5", "cell": "mlp_out.3.4", "noise_seed": "7", "subject": "@3"})
    assert not notes and parse(to_params(state))[0] == state


def test_a_prompt_of_one_token_says_what_is_missing():
    app = start(prompt="Japan")
    assert not app.exception and any("needs a word before" in one.value for one in app.info)


def test_a_cell_says_its_numbers_and_leads_to_the_flow_graph(drawn):
    app = start(samples="2", cell="attn_out.4.7")
    assert "Attention of blocks 3 to 5 (around 4) at “·of” (position 7)" in texts(app)
    assert drawn["trace_attn_out"][0].cells["framed"].sum() == 1
    app.button(key="trace_to_flow").click().run()
    assert app.query_params["node"] == "L4.attn_out" and app.query_params["target"] == " Tokyo"
    assert not app.exception and app.title[0].value == "Flow graph"


def test_what_takes_long_is_offered_runs_and_shows_its_samples(drawn, monkeypatch):
    monkeypatch.setattr(page, "st_trace_seconds", lambda *_: 100.0)
    app = start(samples="3")
    assert not drawn and "120 states and windows" in texts(app) and "2 min" in texts(app)
    app.button(key="run trace").click().run()
    for _ in range(100):
        if drawn:
            break
        time.sleep(0.2)
        app.switch_page("pages/trace.py").run()
    assert not app.exception and len(drawn) == 3 and "samples of noise" in texts(app)


def test_a_server_for_many_takes_no_run_of_an_hour(monkeypatch):
    monkeypatch.setenv("VISIT_HOSTED", "1")
    monkeypatch.setattr(page, "st_trace_seconds", lambda *_: 3600.0)
    app = start()
    assert any("hosted for many" in one.value for one in app.info)
    assert "run trace" not in {one.key for one in app.button}


def test_its_files_hold_the_table_and_say_what_they_are_of(monkeypatch):
    made = {}
    monkeypatch.setattr(page, "downloads", lambda name, tables, picture: made.update(t=tables(), p=picture))
    start(samples="1")
    meta, tables = made["t"]
    assert meta["subject"]["tokens"] == [" Japan"] and len(tables["trace"]) == 3 * 8 * 8 and json.dumps(meta)
    assert b"* \xc2\xb7Japan" in made["p"]("svg")


def test_a_trace_that_nobody_asked_for_takes_the_place_of_nothing_that_was(monkeypatch):
    """On a hosted app a visitor's new run replaces the one before; opening this page is no wish for another."""
    asked = []
    going = SimpleNamespace(asked_by={"me"})
    lane = SimpleNamespace(runs=lambda: [going], submit=lambda key, make, **named: asked.append(named))
    monkeypatch.setattr(page, "WORKER", lane)
    monkeypatch.setattr(page, "is_hosted", lambda: True)
    monkeypatch.setattr(page, "session", lambda: SimpleNamespace(visitor="me"))
    page._begin_trace("key", None, unasked=True)
    page._begin_trace("key", None)
    going.asked_by = {"somebody else"}
    page._begin_trace("key", None, unasked=True)
    assert asked == [{"background": True}, {"visitor": "me"}, {"visitor": "me"}]


def test_a_trace_that_waits_holds_no_pass(monkeypatch):
    """A pass of a long text is hundreds of megabytes, and sixty runs may wait."""
    from visit.app.cache import st_pass, while_kept
    from visit.app.subject import Subject

    monkeypatch.setattr(page, "watched", lambda name, key, make, **_: made.append(make))
    monkeypatch.setattr(page, "st_trace_seconds", lambda *_: 100.0)
    made: list = []
    key = ("visit-mini", "A text of which no other test makes a pass, for Japan")
    model, acts = st_pass(*key)
    subject = Subject(key, 3, 5, None, *while_kept(key, model, acts))
    page.traced(page.AskedTrace(subject, (1,), 2, 3.0, 0, None))
    held = ref(acts)
    del acts
    cache._passes().clear()
    gc.collect()
    assert held() is None
    assert made[0]().question.acts.token_ids == subject.acts.token_ids


def test_every_number_that_an_address_can_hold_is_one_that_its_field_can_show():
    app = start(samples="999999", noise="999.999", noise_seed="999999", window="999999", cell="resid.9999.999999")
    assert not app.exception and "samples must be from 1 to 1,000" in texts(app)
    assert not start(samples="1", noise="0.001", window="1").exception
