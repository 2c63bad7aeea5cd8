"""What goes on is looked at again, and the page follows: no look cuts off a page that is being sent."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from visit.app import follow
from visit.app.sessions import Session


def page() -> None:
    """A page that looks at something in its middle."""
    import streamlit as st

    from visit.app.follow import begin_page, end_page, look_again

    begin_page()
    order = st.session_state.setdefault("order", [])
    look_again(1.0, lambda: (order.append("look"), st.caption("seen"))[1])
    order.append("rest")
    st.caption("rest")
    end_page()


def test_a_look_is_drawn_in_its_place_but_after_all_else():
    app = AppTest.from_function(page).run()
    assert app.session_state["order"] == ["rest", "look"], "its timer starts when the page is whole"
    assert [c.value for c in app.caption] == ["seen", "rest"]


class Rerun(Exception):
    pass


@pytest.fixture
def look(monkeypatch):
    """Looks at a moment so many seconds after a page's end; returns how often the thing itself was drawn."""

    def at(seconds: float | None) -> int:
        def rerun():
            raise Rerun

        drawn: list[int] = []
        memory = {"visit": Session(drawn=None if seconds is None else 100.0)}
        monkeypatch.setattr(follow.st, "session_state", memory)
        monkeypatch.setattr(follow.st, "rerun", rerun)
        monkeypatch.setattr(follow.time, "monotonic", lambda: 100.0 + (seconds or 0.0))
        follow._look(drawn.append, (1,))
        return len(drawn)

    return at


def test_a_look_right_after_the_end_of_a_page_has_it_drawn_again(look):
    with pytest.raises(Rerun):
        look(follow.UNSURE / 2)
    assert look(follow.UNSURE * 1.1) == 1, "later ones only look"
    assert look(None) == 1, "and so does the page itself"


# ---- a press beside a look -------------------------------------------------------------------------------------------
def with_a_button() -> None:
    import streamlit as st

    from visit.app.follow import pressed

    st.session_state["begun"] = st.session_state.get("begun", 0) + pressed("Run", "run")


def test_a_press_is_taken_once():
    app = AppTest.from_function(with_a_button).run()
    assert app.session_state["begun"] == 0
    app.button(key="run").click().run()
    assert app.session_state["begun"] == 1 and app.run().session_state["begun"] == 1


@pytest.mark.parametrize(("ago", "begun"), [(1.0, 1), (follow.PRESSED + 1, 0)])
def test_a_press_that_streamlit_has_forgotten_meanwhile_counts_for_a_while(ago, begun):
    """A look that ends has all buttons up for the next run, which has begun already; the press was noted before."""
    app = AppTest.from_function(with_a_button).run()
    app.session_state["visit"].presses["run"] = follow.time.monotonic() - ago
    assert app.run().session_state["begun"] == begun == app.run().session_state["begun"]
