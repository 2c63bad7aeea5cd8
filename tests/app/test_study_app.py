"""The page of the paper's studies: before a run, while it goes on, after it, and with a second study over it."""

from __future__ import annotations

import time

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from visit.app.address import parse, to_params
from visit.app.state import State
from visit.lenses import weights
from visit.runs.worker import WORKER


def start(**params: str) -> AppTest:
    app = AppTest.from_file("../../streamlit_app.py", default_timeout=120)
    for key, value in params.items():
        app.query_params[key] = value
    return app.run().switch_page("pages/study.py").run()


def text(app: AppTest) -> str:
    return " ".join(e.value for e in [*app.markdown, *app.caption, *app.info, *app.warning])


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIT_CACHE", str(tmp_path))


def test_before_a_run_the_page_says_what_it_will_take():
    app = start(opened="takes-time")
    assert not app.exception and not app.error and not app.warning
    assert "for 100 prompts on this machine" in text(app) and "of it goes into" in text(app)
    assert [b.label for b in app.button].count("Run") == 1
    chart = app.get("arrow_vega_lite_chart") or app.get("vega_lite_chart")
    assert chart, "what takes the time is drawn"


def test_the_address_chooses_figures_layers_and_numbers():
    app = start(figures="2b,5", k="20", blocks="0,3-4", count="20", correct="only", second="none", set="names")
    assert not app.exception and not app.error and not app.warning
    assert "2 of 20 figures, k = 20, layers 0, 3, 4, words in common" in text(app)
    assert "for 20 prompts" in text(app)


@pytest.mark.parametrize(
    ("params", "said"),
    [({"figures": "<b>"}, "“figures” cannot be used"), ({"figures": "2b,99"}, ""),
     ({"blocks": "0-99"}, "run from 0 to 7"),
     ({"k": "99999"}, ""), ({"k": "0"}, "“k” cannot be used"), ({"count": "7"}, "“count” cannot be used"),
     ({"correct": "maybe"}, "“correct” cannot be used"), ({"blocks": "5-3"}, "Layers"), ({"ranks": "x"}, "“ranks”"),
     ({"draws": "999999"}, ""), ({"seed": ""}, ""), ({"set": "own"}, "Paste prompts")],
)  # fmt: skip
def test_a_link_that_asks_for_what_there_is_not_still_works(params, said):
    app = start(**params)
    assert not app.exception and not app.error
    assert said.lower() in text(app).lower()


def test_the_state_goes_round_through_the_address():
    state, notes = parse({"figures": "2b,5,tables", "k": "20", "blocks": "1-3", "ranks": "4", "count": "all"})
    assert not notes and (state.studies.figures, state.studies.k, state.studies.count) == ("2b,5,tables", 20, "all")
    assert parse(to_params(state))[0] == state and to_params(State()) == {}


# ---- a run, looked at while it goes on -------------------------------------------------------------------------------


@pytest.fixture
def held(monkeypatch):
    """A run that stands still in front of its fourth prompt until it is told to go on; counted: charts and studies."""
    weights._BUILT.clear()  # whatever another file of this process has read
    from threading import Event

    from visit.app import study_results
    from visit.studies import run as running

    go, drawn, take, made = Event(), [], running.StudyRun.read, study_results.panels
    go.standing = Event()

    def waits(self, rows):
        if self.sums.prompts >= 3:
            go.standing.set()
            go.wait(60)
        return take(self, rows)

    monkeypatch.setattr(running, "FLOP", 1.0)
    monkeypatch.setattr("visit.runs.job.AIM", 1e-9)
    monkeypatch.setattr(running.StudyRun, "read", waits)
    monkeypatch.setattr(
        study_results, "panels", lambda run, figure, *more: drawn.append(figure) or made(run, figure, *more)
    )
    yield go, drawn
    go.set()
    WORKER.reset()


def begun(app: AppTest) -> AppTest:
    app.session_state["visit"].run_study = True  # AppTest loses clicks on a page that it was switched to
    app.run()
    for _ in range(100):
        if "3 of 20 prompts" in " ".join(e.proto.text for e in app.get("progress")):
            return app
        time.sleep(0.1)
        app.run()
    raise AssertionError("the run did not come to its third prompt")


def test_charts_are_drawn_when_figures_are_complete_or_opened_and_not_with_every_batch(held, monkeypatch):
    """One bar, one button to stop, nothing to lay over, and no chart while the prompts run; then each chart once."""
    go, drawn = held
    app = begun(start(figures="2b,14", count="20", draws="20"))
    for _ in range(3):
        app.run()
        assert len(app.get("progress")) == 1 and [b.label for b in app.button].count("Stop, and keep what is done") == 1
        assert not [box for box in app.selectbox if box.label == "Compare with"] and not app.exception
    assert drawn == [], "nobody has opened a figure"
    opened, pills = ["14"], st.pills
    monkeypatch.setattr(st, "pills", lambda *a, key, **k: opened[0] if key == "so_far" else pills(*a, key=key, **k))
    app.run()
    assert drawn == ["14"] and "Fig. 14. When" in " ".join(e.value for e in app.header)
    opened[0] = None
    app.run()
    drawn.clear()
    go.set()
    for _ in range(100):
        app.run()
        if app.get("download_button"):
            break
        time.sleep(0.1)
    for _ in range(3):
        app.run()
    assert sorted(drawn) == ["14", "2b"] and not app.exception
    assert not app.get("progress") and len([box for box in app.selectbox if box.label == "Compare with"]) == 1


@pytest.mark.slow
def test_a_stopped_run_says_where_and_can_be_resumed(held):
    go, drawn = held
    app = begun(start(figures="2b,8,14", count="20", draws="20"))
    assert go.standing.wait(60)
    next(run for run in WORKER.runs() if run.key[0].startswith("study")).cancel()
    go.set()
    app.run()
    for _ in range(100):
        if any(b.label == "Resume" for b in app.button):
            break
        time.sleep(0.1)
        app.run()
    assert "Stopped after 4 of 20 prompts" in text(app).replace("\\", "")
    assert set(drawn) == {"2b", "14"}, "Figure 8 needs all rows of the weights, which no page reads"
    app.session_state["visit"].run_study = True
    app.run()
    for _ in range(300):
        if app.get("download_button") and "Fig. 8. " in " ".join(e.value for e in app.header):
            return
        time.sleep(0.1)
        app.run()
    raise AssertionError("the run did not go on to its end")


def test_beside_a_long_run_stands_a_cheaper_one_with_its_time(monkeypatch):

    monkeypatch.setattr("visit.studies.duration.LONG", 0.01)
    app = start(figures="2b,8,14,16,19", count="100", draws="20")
    labels = [b.label for b in app.button]
    quick = next(b for b in app.button if b.label.startswith("Quick run"))
    assert quick.label.startswith("Quick run: 2 figures, 20 prompts, about ")
    assert any(label.startswith("Run all: about ") for label in labels) and "Run" not in labels
    assert "Fig. 2b, Fig. 14" in quick.proto.help
