"""What goes on by itself is looked at again and again; a page follows when it has ended, and arrives whole.

Streamlit throws away what a run of a page has not sent yet when a fragment's timer is heard of just as that run ends:
it then starts another runner and no longer listens to the first (`AppSession.request_rerun`). The browser is left with
half a page, or with an old one without a timer, and nobody asks again. Two rules keep this from happening. No timer
starts before the whole page is drawn, so none can end in its drawing. A look that comes nevertheless right after a
page's end, of a timer that the page before had started, has the page drawn once more.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import streamlit as st

from visit.app.live import announce
from visit.app.problems import shown_errors
from visit.app.sessions import draw_anew, session

PRESSED = 30.0  # seconds that a press counts at most: the page may be begun again before it comes to the button
UNSURE = 0.5  # seconds after the end of a page in which a look may have cut off what the browser gets of it


def pressed(label: str, key: str, icon: str | None = None, primary: bool = False) -> bool:
    """A button on a page that looks again at something; whether it was pressed.

    What a look leaves behind when it ends, Streamlit puts right for the next run: no button is pressed any more. Where
    that run has begun already, for a press, it never hears of it. Its callbacks do, in which the press is noted.
    """
    presses = session().presses
    st.button(label, key=key, icon=icon, type="primary" if primary else "secondary", on_click=_note_press, args=(key,))
    return time.monotonic() - presses.pop(key, -PRESSED) < PRESSED


def _note_press(key: str) -> None:
    session().presses[key] = time.monotonic()


def begin_page() -> None:
    """Call where a run of the whole page begins."""
    now = session()
    now.later, now.drawn, now.saying, now.marks, now.figures, now.standing = [], None, [], [], [], None


def look_again(every: float, draw: Callable[..., None], *args: Any) -> None:
    """Have `draw(*args)` at this place when the page is drawn, and from then on every `every` seconds (> UNSURE).

    `draw` runs the page anew (`draw_anew()`) when it has something else to show. What its buttons do belongs in their
    `on_click`, which comes first, and those of the page are `pressed`.
    """
    assert every > UNSURE
    session().later.append((st.container(), every, draw, args))


def end_page() -> None:
    """Call where a run of the whole page ends: draws what is looked at again, and tells what changed."""
    now = session()
    announce()
    later, now.later = now.later, []
    for place, every, draw, args in later:
        with place:
            st.fragment(_look, run_every=every)(draw, args)
    now.drawn = time.monotonic()


def _look(draw: Callable[..., None], args: tuple[Any, ...]) -> None:
    drawn = session().drawn  # None in a run of the whole page
    if drawn is not None and time.monotonic() - drawn < UNSURE:
        draw_anew()
    with shown_errors():
        draw(*args)
