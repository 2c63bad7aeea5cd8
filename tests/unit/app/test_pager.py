"""The pager of a long prompt: which positions it shows, and that leaving its page does no harm."""

from __future__ import annotations

from streamlit.testing.v1 import AppTest


def page():
    import streamlit as st

    from visit.app.widgets import pager

    now = st.session_state
    if now.get("away"):  # another page: its run drops the slider's own value
        st.write("elsewhere")
        return
    shown = pager("long", now.get("prompt", "a"), now.get("count", 40), now.get("here", 39), 10)
    st.write(f"{shown.start} to {shown.stop}")


def said(app: AppTest) -> str:
    assert not app.exception
    return app.markdown[-1].value


def test_a_page_that_was_left_shows_its_pager_again_as_the_slider_stands():
    app = AppTest.from_function(page).run()
    assert said(app) == "30 to 40" and app.slider[0].value == 30
    app.slider[0].set_value(5).run()
    assert said(app) == "5 to 15"
    app.session_state["away"] = True
    assert said(app.run()) == "elsewhere"
    app.session_state["away"] = False
    app.run()
    assert said(app) == f"{app.slider[0].value} to {app.slider[0].value + 10}" == "5 to 15"
    app.slider[0].set_value(7).run()
    assert said(app) == "7 to 17"


def test_a_pager_follows_the_position_and_the_prompt():
    app = AppTest.from_function(page).run()
    app.slider[0].set_value(0).run()
    app.session_state["here"] = 20
    assert said(app.run()) == "11 to 21"
    app.slider[0].set_value(0).run()
    app.session_state["prompt"] = "another of the same length"
    assert said(app.run()) == "11 to 21"
    app.session_state["count"] = 10  # short: no slider, everything is shown
    assert said(app.run()) == "0 to 10" and not app.slider
