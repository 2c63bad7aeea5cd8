"""What a browser sent before it heard of the new address takes back nothing that was done meanwhile."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from streamlit.testing.v1 import AppTest

from visit.app import sessions

ROOT = Path(__file__).parents[2]


@pytest.fixture
def page(monkeypatch) -> AppTest:
    """A page with two fields to turn."""
    monkeypatch.setattr(sessions, "HEARD_WITHIN", 600.0)  # this machine may be slow
    return AppTest.from_file(str(ROOT / "streamlit_app.py"), default_timeout=120).switch_page("pages/flow.py").run()


def address(app: AppTest) -> dict[str, str]:
    return {name: text[0] if isinstance(text, list) else text for name, text in app.query_params.items()}


def turn_twice(app: AppTest) -> dict[str, str]:
    """Two controls, and the second one's message still says the address before the first; returns that at the end."""
    app.text_input(key="w_values").set_value("3").run()
    assert address(app) == {"values": "3"}
    app.query_params.clear()
    app.text_input(key="w_neurons").set_value("4").run()
    assert not app.exception
    return address(app)


def test_a_second_click_does_not_take_the_first_one_back(page):
    assert turn_twice(page) == {"values": "3", "neurons": "4"}


def test_who_goes_back_in_the_history_means_the_old_address(page, monkeypatch):
    page.text_input(key="w_values").set_value("3").run()
    page.query_params.clear()
    back = SimpleNamespace(is_history_navigation=True)
    monkeypatch.setattr(sessions, "get_script_run_ctx", lambda **_: back)
    page.run()
    assert address(page) == {} and page.session_state["visit"].state.graph.values == "2"


def test_an_address_is_forgotten_when_every_browser_has_heard_of_the_new_one(page, monkeypatch):
    page.text_input(key="w_values").set_value("3").run()
    monkeypatch.setattr(sessions, "HEARD_WITHIN", 0.0)
    page.query_params.clear()
    page.run()
    assert address(page) == {}, "a link to this page that says nothing shows its defaults"


def looks() -> None:
    """A page whose timer was asked for when its table was open; it was folded meanwhile."""
    import streamlit as st

    from visit.app.sessions import draw_anew, open_page, session, state

    open_page("flow")
    runs = st.session_state.setdefault("runs", [])
    runs.append(state().opened)
    if len(runs) == 1:
        session().left.clear()  # long ago
        st.query_params["opened"] = "map-table"
        draw_anew()


def test_a_part_that_has_the_page_drawn_anew_does_not_go_back_to_its_own_address():
    app = AppTest.from_function(looks, default_timeout=60).run()
    assert not app.exception and app.session_state["runs"] == ["", ""] and address(app) == {}


def test_pages_are_drawn_anew_in_one_way():
    asked = [file.name for file in (ROOT / "visit" / "app").glob("*.py") if "st.rerun()" in file.read_text("utf-8")]
    assert asked == ["sessions.py"], "st.rerun() goes back to an address that may be an old one: draw_anew()"
