"""A class in one room, as its members see it: joining, what the teacher opens and reveals, leaving.

A member's place (`visit.app.address.Seat`: code and token) stands in the address: a reload, a closed laptop and a lost
connection all come back to it, without a cookie and with nothing stored on a school's computer. It stands beside the
state of the page, so *Share* never gives it away.

A page that waits looks every WAIT_SECONDS in a fragment of its own. It never runs the page again: what is revealed is
drawn in the fragment, and a step that was opened is a button. So a hundred pages do not run at once when the teacher
goes on, and nobody is torn away from what she reads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from visit.app.address import Seat
from visit.app.follow import look_again
from visit.app.problems import shown_errors
from visit.app.sessions import draw_anew, session
from visit.app.widgets import plain
from visit.errors import VisitError
from visit.lessons.nicknames import NICKNAME_LENGTH
from visit.lessons.room import CODE_LENGTH, Room, Rooms
from visit.lessons.tally import AnswerBar, bars, question_text, questions_at, step_of

if TYPE_CHECKING:
    from visit.lessons.lesson import Lesson

ROOMS = Rooms()  # of this process; in no cache, which anybody could clear
WAIT_SECONDS = 2.0
STYLE = Path(__file__).with_name("room.css")


# ---- where a visitor sits --------------------------------------------------------------------------------------------
def sit(seat: Seat) -> None:
    """Take a place. Only from callbacks: the address says it as the page is drawn."""
    session().seat = seat


def attempt(call: Callable[..., None], *args: Any) -> None:
    """In a callback: do it, and keep what is wrong for `tell_problem`."""
    try:
        call(*args)
    except VisitError as problem:
        st.session_state["room_problem"] = str(problem)


def tell_problem() -> None:
    """Say what was wrong with the last attempt."""
    if problem := st.session_state.pop("room_problem", ""):
        st.error(plain(problem), icon=":material/error:")


def find_room() -> Room | None:
    """The room that the address names; None without one. `VisitError` when there is none of this code."""
    seat = session().seat
    return ROOMS.find(seat.room, session().tries, seat.key) if seat.room else None


def membership() -> Room | None:
    """The room in which this visitor is a member, and None otherwise."""
    return ROOMS.of_member(session().seat.room, session().seat.me)


@lru_cache(maxsize=64)
def lesson_in(text: str) -> Lesson:
    """The lesson of a room."""
    from visit.lessons.lesson_file import parse_lesson

    return parse_lesson(text)


def record(key: str, given: str, right: bool | None, hints: int) -> None:
    """Tell the room, where there is one, what was answered to a question. `key`: its name in the lesson."""
    room = membership()
    if room is not None and given:  # a question that was skipped has no answer
        verdict = {True: "right", False: "wrong", None: "unchecked"}[right]
        room.answer(session().seat.me, step_of(key, len(room.steps)), key, given, verdict, hints)


def may_open(step: int) -> bool:
    """Whether this visitor may go to a step: outside a room to every one."""
    room = membership()
    return room is None or room.signal.reaches(step)


# ---- joining ---------------------------------------------------------------------------------------------------------
def join_panel() -> Room | None:
    """The room that this visitor is in; else a field for its code and a nickname, and what was wrong with them."""
    if (room := membership()) is not None:
        return room
    seat = session().seat
    if seat.me:
        st.info("You are no longer in this room. Join it again, or go on alone.", icon=":material/logout:")
    with st.form("join", width=420):
        st.text_input("Code of your class", seat.room, max_chars=CODE_LENGTH + 4, key="join_code")
        st.text_input("Nickname (or leave it empty)", max_chars=NICKNAME_LENGTH, key="join_name",
                             help="Your teacher sees it beside your answers, until the room closes.")  # fmt: skip
        st.form_submit_button("Join", type="primary", on_click=attempt, args=(_join,))
    asked = "room_problem" in st.session_state
    tell_problem()
    if seat.room and not seat.me and not asked:  # a link to a room that there is not says so before anything is typed
        with shown_errors():
            find_room()
    return None


def _join() -> None:
    room = ROOMS.find(st.session_state.get("join_code", session().seat.room), session().tries)
    sit(Seat(room.code, room.join(st.session_state.get("join_name", ""))))


def leave() -> None:
    """Go out of the room; the lesson stays."""
    room = membership()
    if room is not None:
        room.leave(session().seat.me)
    sit(Seat())


# ---- what a member sees while the class goes on ----------------------------------------------------------------------
def class_strip(step: int, go: Callable[[int], None]) -> None:
    """How far the class is, what was revealed of this step, and a button to what the teacher opened.

    `step`: where the visitor is in the room's lesson; `go(step)`: takes her to another. Nothing outside a room.
    """
    room = membership()
    if room is None:
        return
    room.go(session().seat.me, step)
    st.html(STYLE)
    look_again(WAIT_SECONDS, _wait, room, session().seat.me, step, go)


def _wait(room: Room, token: str, step: int, go: Callable[[int], None]) -> None:
    if not room.knows(token):
        gone = "The room is closed." if room.closed else "You are no longer in this room."
        st.info(f"{gone} You can go on alone; your answers on this page stay.", icon=":material/logout:")
        return
    signal = room.signal
    name = plain(room.member(token).name)
    last = len(room.steps) - 1 if signal.opened is None else signal.opened
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        place = "each at your own pace" if signal.opened is None else f"the class is at **{plain(room.steps[last])}**"
        st.markdown(f":material/groups: **{room.code}** · {name} · {place}", width="content")
        if last > step:
            st.button(f"Go on to {plain(room.steps[step + 1])}", key="room_go", type="primary", on_click=_follow,
                      args=(go, step + 1))  # fmt: skip
        if st.session_state.pop("room_moved", False):
            draw_anew()
        st.button("Leave the class", key="room_leave", type="tertiary", on_click=leave)
    if step in signal.revealed:
        lesson = lesson_in(room.lesson)
        for key, question in questions_at(lesson, step):
            shown = bars(question, room.distribution(step, key))
            st.markdown(f"What the class answered: **{plain(question_text(question))}**")
            st.html(bars_html(shown, right=True) if shown else "<p>Nobody has answered yet.</p>")


def _follow(go: Callable[[int], None], step: int) -> None:
    go(step)
    st.session_state["room_moved"] = True


# ---- bars ------------------------------------------------------------------------------------------------------------
def bars_html(shown: list[AnswerBar], right: bool) -> str:
    """Bars as HTML, every text of which is escaped. `right`: mark what is right; before that no bar says so."""
    most = max((bar.count for bar in shown), default=0) or 1
    rows = []
    for bar in shown:
        css = " right" if right and bar.right else ""
        mark = " ✓" if css else ""
        rows.append(
            f"<span class='label{css}'>{escape(bar.label)}{mark}</span>"
            f"<span class='bar{css}'><i style='width:{100 * bar.count / most:.0f}%'></i></span>"
            f"<span class='count'>{bar.count}</span>"
        )
    return f"<div class='bars' role='group' aria-label='Answers of the class'>{''.join(rows)}</div>"
