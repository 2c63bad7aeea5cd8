"""The teacher's page of a class: a room is opened for a lesson, and ruled with its key while the lesson goes on."""

from __future__ import annotations

from base64 import b64encode
from functools import lru_cache, partial
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import streamlit as st

from visit.app import room_results
from visit.app.address import Seat
from visit.app.follow import look_again
from visit.app.lesson_progress import keep_own
from visit.app.problems import shown_errors
from visit.app.room import ROOMS, STYLE, WAIT_SECONDS, attempt, bars_html, find_room, lesson_in, sit, tell_problem
from visit.app.sessions import session, state
from visit.app.share import is_local, qr_code
from visit.app.widgets import plain
from visit.errors import VisitError
from visit.lessons.room import IDLE_SECONDS, MAX_MEMBERS, Room, View
from visit.lessons.room_file import FILE_BYTES, answers_csv, answers_table, open_saved, save_room
from visit.lessons.tally import bars, question_text, questions_at, room_steps

if TYPE_CHECKING:
    from visit.lessons.lesson import Exercise, Lesson

OWN_LESSON = "A lesson of my own (a file)"


def page() -> None:
    """The whole page below its title: the room that the address has the key of, else how to open one."""
    st.html(STYLE)
    for note in session().notes:
        st.warning(plain(note), icon=":material/link_off:")
    seat = session().seat
    if seat.key:
        with shown_errors():
            room = find_room()
            if room is not None and room.rules(seat.key):
                _rule(room, seat.key)
                return
        st.info("This address has no key of an open room. Open a new one, or a saved one.", icon=":material/key_off:")
    tell_problem()
    new, saved, files = st.tabs(["Open a room", "Open a saved room", "From result files"])
    with new:
        _new_room()
    with saved:
        _saved_room()
    with files:
        room_results.panel()


# ---- opening ---------------------------------------------------------------------------------------------------------
def _new_room() -> None:
    from visit.lessons.shipped import shipped_lesson, shipped_lessons, shipped_text

    titles = {name: f"{name.partition('-')[0]} · {shipped_lesson(name).title}" for name in shipped_lessons()}
    titles |= {OWN_LESSON: OWN_LESSON}
    chosen = st.selectbox("Lesson", list(titles), key="room_lesson", format_func=titles.__getitem__)
    if chosen == OWN_LESSON:
        file = st.file_uploader("The lesson's file", ["md", "txt"], key="room_lesson_file", max_upload_size=1)
        text = file.getvalue().decode("utf-8", "replace") if file else None
    else:
        text = shipped_text(chosen)
    st.caption(
        f"Students need the code or the link, and nothing else. Nothing is stored: everything of the room is gone when "
        f"you close it, when the server is started anew, or after {IDLE_SECONDS / 3600:.0f} hours in which nothing "
        f"happens. Download the room before. Up to {MAX_MEMBERS} members."
    )
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        st.button("Open the room", type="primary", disabled=text is None, key="room_open", on_click=attempt,
                  args=(_open_room, text))  # fmt: skip
        if chosen != OWN_LESSON:
            for teacher, label in ((False, "Handout to print"), (True, "The same with answers and notes")):
                st.download_button(
                    label, partial(_handout, chosen, teacher), f"{chosen}-{'teacher' if teacher else 'handout'}.html",
                    "text/html", icon=":material/print:", key=f"handout_{teacher}", type="tertiary", on_click="ignore",
                )  # fmt: skip


def _handout(name: str, teacher: bool) -> str:
    """A shipped lesson as a page to print; its answers are those of a run on its model."""
    from visit.app.cache import st_model
    from visit.files.lesson_handout import lesson_handout
    from visit.lessons.check import runs_of
    from visit.lessons.shipped import shipped_lesson

    lesson = shipped_lesson(name)
    return lesson_handout(lesson, runs_of(lesson, st_model(lesson.model)), teacher)


def _saved_room() -> None:
    st.caption("The file of “Download the room”. Students who reload their page are in it again, as whom they were.")
    file = st.file_uploader("A saved room", ["json"], key="room_file", max_upload_size=FILE_BYTES >> 20)
    st.button("Open it again", type="primary", disabled=file is None, key="room_reopen", on_click=attempt,
              args=(_open_again, None if file is None else file.getvalue()))  # fmt: skip


def _open_room(text: str) -> None:
    lesson = lesson_in(text)
    _take_over(*ROOMS.open(lesson.title, room_steps(lesson), text))


def _open_again(data: bytes) -> None:
    _take_over(*open_saved(ROOMS, data))


def _take_over(room: Room, key: str) -> None:
    try:
        keep_own(room.lesson)  # students' addresses name it
    except VisitError:  # a saved room of a lesson that is none (any more)
        room.close(key)
        raise
    sit(Seat(room.code, "", key))


# ---- ruling ----------------------------------------------------------------------------------------------------------
def _rule(room: Room, key: str) -> None:
    lesson = lesson_in(room.lesson)
    if room_steps(lesson) != room.steps:
        raise VisitError("The steps of this room are not those of its lesson. Open a new room for the lesson.")
    _door(room)
    look_again(WAIT_SECONDS, _class, room, key, lesson)
    if not state().projector:
        _files_and_end(room, key)


def _door(room: Room) -> None:
    """The code on the wall, the link and its QR code."""
    link = join_link(room)
    shown = urlsplit(link)
    with st.container(horizontal=True, vertical_alignment="center", gap="medium", key="room_door"):
        st.html(
            f"<div class='room-code'><b>{room.code}</b><p>{escape(room.title)}<br>"
            f"<code>{escape(shown.netloc + shown.path)}</code></p></div>",
            width="content",
        )
        with st.popover("QR code and link", icon=":material/qr_code_2:"):
            st.html(_qr_picture(link))
            st.code(link, language=None, wrap_lines=True)
            if is_local(link):
                st.caption("This address is of this computer alone. Others reach it under its name or number in the "
                           "network, with the same port: open this page there.")  # fmt: skip


def join_link(room: Room) -> str:
    """The address at which students join."""
    parts = urlsplit(st.context.url or "http://localhost:8501/room")
    base = parts.path.rpartition("/")[0]
    return urlunsplit((parts.scheme, parts.netloc, f"{base}/learn", f"room={room.code}", ""))


@lru_cache(maxsize=64)
def _qr_picture(link: str) -> str:
    """The link's QR code as HTML; of SVG that stands in HTML itself Streamlit leaves nothing."""
    picture = b64encode(qr_code(link).encode()).decode()
    return f"<div class='room-qr'><img alt='QR code of the link' src='data:image/svg+xml;base64,{picture}'></div>"


def _class(room: Room, key: str, lesson: Lesson) -> None:
    """What changes while the class goes on; all of it is drawn in a fragment."""
    with shown_errors():
        view = room.look(key)
        step = _step_control(room, view)
        _ruling(room, key, view, step)
        st.header(plain(room.steps[step]), anchor=False)
        asked = questions_at(lesson, step)
        answers, code = st.columns([3, 1]) if view.opened == 0 else (st.container(), None)
        if code is not None:  # the class comes in
            code.html(_qr_picture(join_link(room)))
        with answers:
            for name, question in asked:
                _question(room, view, step, name, question)
            if not asked:
                st.caption("No question is asked at this step.")
        if not state().projector:
            _members(room, key, view)


def _step_control(room: Room, view: View) -> int:
    """Which step is looked at: the one that was opened last, until another is chosen."""
    opened = st.session_state.pop("room_follow", None)
    if opened is not None or "room_step" not in st.session_state:
        st.session_state["room_step"] = opened if opened is not None else view.opened or 0

    def label(n: int) -> str:
        there = sum(m.step == n for m in view.present)
        closed = view.opened is not None and n > view.opened
        name = {0: "Start", len(room.steps) - 1: "End"}.get(n, str(n))
        return f"{':material/lock: ' * closed}{name}{f' · {there}' * bool(there)}"

    chosen = st.segmented_control(
        "Step · how many are there", list(range(len(room.steps))), format_func=label, key="room_step"
    )
    return view.opened or 0 if chosen is None else chosen


def _ruling(room: Room, key: str, view: View, step: int) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if view.opened is not None and view.opened + 1 < len(room.steps):
            ahead = view.opened + 1
            st.button(f"Open step {ahead} for all", type="primary", key="room_next", on_click=attempt,
                      args=(_open_step, room, key, ahead), help=plain(room.steps[ahead]))  # fmt: skip
        shown = step in view.revealed
        st.button("Hide the answers" if shown else "Reveal the answers", key="room_reveal",
                  icon=":material/visibility_off:" if shown else ":material/visibility:",
                  on_click=attempt, args=(room.reveal, key, step, not shown),
                  help="Students at this step see these bars, with what is right.")  # fmt: skip
        pace = st.toggle("Each at their own pace", view.opened is None, key="room_pace",
                         help="All steps are open to everybody.")  # fmt: skip
        if pace != (view.opened is None):
            room.open_step(key, None if pace else step)
            st.rerun(scope="fragment")
        st.markdown(f":material/groups: **{len(view.present)}** in the room", width="content")


def _open_step(room: Room, key: str, step: int) -> None:
    room.open_step(key, step)
    st.session_state["room_follow"] = step


def _question(room: Room, view: View, step: int, name: str, question: Exercise) -> None:
    mine = [a for a in view.answers if a.question == name]
    last = {a.member: a for a in mine}
    right = sum(a.verdict == "right" for a in last.values())
    st.subheader(plain(question_text(question)), anchor=False)
    shown = bars(question, room.distribution(step, name))
    if shown:
        st.html(bars_html(shown, right=step in view.revealed))
    said = [f"{len(last)} of {len(view.present)} have answered; the bars are their first answers"]
    if step in view.revealed and question.kind != "free":
        said.append(f"right in the end: {right}")
    if hints := sum(a.hints > 0 for a in last.values()):
        said.append(f"with a hint: {hints}")
    st.caption(" · ".join(said))


def _members(room: Room, key: str, view: View) -> None:
    with st.expander("Members: where they are, hints, answers", icon=":material/group:", key="room_members"):
        if not view.members:
            st.caption("Nobody has joined yet.")
            return
        st.dataframe(member_rows(view, room.steps), hide_index=True, width="stretch")
        with st.container(horizontal=True, vertical_alignment="bottom"):
            names = {m.number: m.name for m in view.members}
            number = st.selectbox("Remove a member, with all answers", list(names), None, key="room_remove_who",
                                  format_func=lambda n: names.get(n, "–"))  # fmt: skip
            st.button("Remove", key="room_remove", disabled=number is None, on_click=_remove, args=(room, key, number))


def _remove(room: Room, key: str, number: int) -> None:
    room.remove(key, number)
    st.session_state.pop("room_remove_who", None)


def member_rows(view: View, steps: tuple[str, ...]) -> list[dict[str, Any]]:
    """One row per member: name, step, answered and right questions, hints."""
    rows = []
    for member in view.members:
        last = {a.question: a for a in view.answers if a.member == member.number}
        rows.append({
            "member": member.name, "step": "left" if member.left else f"{member.step} · {steps[member.step]}",
            "answered": len(last), "right": sum(a.verdict == "right" for a in last.values()),
            "hints": sum(a.hints for a in last.values()),
        })  # fmt: skip
    return rows


def _files_and_end(room: Room, key: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="room_files"):
        st.download_button("Answers (CSV)", partial(_csv, room, key), f"visit-{room.code}.csv", "text/csv",
                           on_click="ignore", icon=":material/table:")  # fmt: skip
        st.download_button("Download the room", partial(save_room, room, key), f"visit-room-{room.code}.json",
                           "application/json", on_click="ignore", icon=":material/save:",
                           help="It can be opened again after a restart of the server.")  # fmt: skip
        st.toggle("No newcomers", room.look(key).locked, key="room_lock", on_change=_lock, args=(room, key))
        with st.popover("Close the room", icon=":material/door_front:"):
            view = room.look(key)
            st.warning(
                f"Closing deletes everything: {len(view.answers)} answers of {len(view.members)} members. Nothing is "
                "kept on the server, and nothing can be brought back. Download the answers and the room first."
            )
            st.button("Close and delete", type="primary", key="room_close", on_click=_close, args=(room, key))
    st.caption("Your key stands in this page's address: keep the address for yourself (Share leaves the key out), and "
               "bookmark it to come back from any browser.")  # fmt: skip


def _csv(room: Room, key: str) -> str:
    return answers_csv(answers_table(room.look(key), room.steps, lesson_in(room.lesson)))


def _lock(room: Room, key: str) -> None:
    room.lock(key, bool(st.session_state["room_lock"]))


def _close(room: Room, key: str) -> None:
    room.close(key)
    sit(Seat())
