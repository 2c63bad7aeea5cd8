"""The page Learn: lessons as cards, a lesson of one's own from a file, and of a lesson its beginning and its end.

The questions before and after a lesson stand here; the steps between are on the real pages (`visit.app.lesson`).
"""

from __future__ import annotations

from functools import partial

import streamlit as st

from visit.app.address import parse
from visit.app.lesson import go_to, leave_lesson, with_class
from visit.app.lesson_progress import keep_own, last_step, lesson_named, progress, result
from visit.app.lesson_question import asked, markdown
from visit.app.room import join_panel, lesson_in, may_open, membership
from visit.app.sessions import session, state
from visit.app.share import heading
from visit.app.sidebar import is_here
from visit.app.widgets import plain
from visit.errors import VisitError
from visit.lessons.lesson import Lesson, LessonError, address_of
from visit.lessons.lesson_file import MOST_CHARACTERS
from visit.lessons.results import write_result
from visit.lessons.shipped import shipped_lesson, shipped_lessons, shipped_text
from visit.models.catalog import LISTED, MINI, title
from visit.text.numbers import size_text


def learn_page() -> None:
    """The list of lessons, or what comes before and after the steps of the one that the address names."""
    st.html("<style>.stMainBlockContainer { padding-top: 4.2rem; }</style>")
    lesson = lesson_named(state().lesson) if state().lesson else None
    if lesson is None:
        heading("Learn", "How does a language model come to its next word? Find out by doing, with checked answers.")
        _class_way_in()
        _cards()
        _open_file()
        return
    with_class(lesson)
    if state().step == 0:
        _lesson_begin(lesson)
    elif state().step <= len(lesson.steps):
        heading(plain(lesson.title), "This lesson is under way.")
        st.button("Go on", type="primary", icon=":material/arrow_forward:", on_click=go_to, args=(lesson, state().step))
        _way_out()
    elif state().step < last_step(lesson):
        _lesson_after(lesson)
    else:
        _lesson_end(lesson)


# ---- the list --------------------------------------------------------------------------------------------------------
_CARDS = """<style>
.st-key-lesson_cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr));
  gap: 0.9rem; }
.st-key-lesson_cards > * { height: 100%; }
[class*="st-key-lesson_card_"] > :last-child { margin-top: auto; }
</style>"""


def _class_way_in() -> None:
    """The way into a class, open where a link brought its code, and to the lesson that the class takes."""
    inside = membership()
    with st.expander("Join your class", icon=":material/groups:", expanded=bool(session().seat.room)):
        room = inside or join_panel()
        if room is not None:
            lesson = lesson_in(room.lesson)
            st.markdown(f"Your class takes the lesson “{plain(lesson.title)}”.")
            st.button("Begin it", type="primary", key="begin_class", on_click=_begin_class, args=(room.lesson,))


def _begin_class(text: str) -> None:
    go_to(keep_own(text), 0)


def _cards() -> None:
    st.html(_CARDS)
    lessons = [shipped_lesson(name) for name in shipped_lessons()]
    ahead = next((lesson for lesson in lessons if not progress(lesson).answers), None)
    with st.container(key="lesson_cards"):
        for number, lesson in enumerate(lessons):
            _lesson_card(number, lesson, lesson is ahead)


def _lesson_card(number: int, lesson: Lesson, ahead: bool) -> None:
    """`ahead`: the first that was not begun, whose button is the one to press."""
    with st.container(border=True, key=f"lesson_card_{number}"):
        st.header(f"{lesson.name.partition('-')[0]} · {plain(lesson.title)}", anchor=False)
        st.markdown(markdown(lesson.about))
        if not lesson.twice:
            st.markdown("\n".join(f"- {markdown(goal)}" for goal in lesson.goals))
        st.caption(f"{lesson.minutes} minutes · {plain(title(lesson.model))}")
        if missing := _at_hand(lesson):
            st.caption(f":material/download: {missing}")
        begun = progress(lesson).answers
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.button("Begin again" if begun else "Begin", type="primary" if ahead else "secondary",
                      key=f"begin_{lesson.name}", on_click=go_to, args=(lesson, 0))  # fmt: skip
            st.download_button("Download", partial(shipped_text, lesson.name), f"{lesson.name}.md", "text/markdown",
                               key=f"file_{lesson.name}", type="tertiary", on_click="ignore",
                               help="The lesson as a text: the pattern for one of your own.")  # fmt: skip


def _open_file() -> None:
    """A lesson from a file or a pasted text, with its mistakes line by line."""
    st.header("A lesson of your own", anchor=False)
    st.markdown(
        "A lesson is one text file. Take one of those above, change it, and open it here: mistakes are said by their "
        "line. Hand it out as the file, or, while this server runs, as the link that stands in the address once it is "
        "open."
    )
    dropped = st.file_uploader("A lesson file (.md)", type=["md", "txt"], key="lesson_file", max_upload_size=1)
    with st.expander("Or paste its text"):
        st.text_area("The lesson's text", key="lesson_pasted", height=200, max_chars=MOST_CHARACTERS)
        st.button("Read it", key="lesson_read", on_click=_paste)
    text = session().pasted
    if dropped is not None:
        try:
            text = dropped.getvalue()[: 4 * MOST_CHARACTERS + 1].decode("utf-8")
        except UnicodeDecodeError:
            st.error("This file is no text in UTF-8. Save it as plain text (UTF-8), and drop it again.",
                     icon=":material/error:")  # fmt: skip
            return
    if not text.strip():
        return
    try:
        lesson = keep_own(text)
    except LessonError as problem:
        count = len(problem.mistakes)
        st.error(f"{count} mistake{'s' if count > 1 else ''} in this lesson:", icon=":material/error:")
        st.markdown("\n".join(f"- **Line {one.line}**: {plain(one.what)}" for one in problem.mistakes))
        return
    except VisitError as problem:
        st.error(plain(str(problem)), icon=":material/error:")
        return
    notes = [f"“{step.title}”: {note}" for step in lesson.steps for note in parse(address_of(lesson, step))[1]]
    for note in notes:
        st.warning(plain(note), icon=":material/link:")
    steps = len(lesson.steps)
    st.success(
        f"“{plain(lesson.title)}” has no mistakes: {steps} step{'s' if steps > 1 else ''}.", icon=":material/check:"
    )
    st.button("Begin it", type="primary", key="begin_own", on_click=go_to, args=(lesson, 0))


def _paste() -> None:
    session().pasted = st.session_state["lesson_pasted"][: MOST_CHARACTERS + 1]


def _at_hand(lesson: Lesson) -> str:
    """What to do where the lesson's model is not on this machine; empty where it is."""
    if lesson.model == MINI or is_here(lesson.model):
        return ""
    size = size_text(LISTED[lesson.model].download)
    return (
        f"This lesson uses {title(lesson.model)} ({size}), which is not on this machine yet: choose it in the sidebar "
        f"and press Download, or run `python -m visit models fetch {lesson.model}` where the app is installed."
    )


# ---- before and after ------------------------------------------------------------------------------------------------
def _lesson_begin(lesson: Lesson) -> None:
    heading(plain(lesson.title), f"{lesson.minutes} minutes with {plain(title(lesson.model))}.")
    st.markdown(markdown(lesson.about))
    if not lesson.twice:  # else they would give the answers away; they stand at the end
        st.markdown("You will see:\n\n" + "\n".join(f"- {markdown(goal)}" for goal in lesson.goals))
    if missing := _at_hand(lesson):
        st.info(missing, icon=":material/download:")
    if lesson.twice:
        st.header("What do you think now?", anchor=False)
        st.caption("Guess freely: what is right is said at the end, when you are asked again.")
        _ask_twice(lesson, "before")
    with st.container(horizontal=True, gap="small"):
        closed = not may_open(1)
        st.button("Begin with step 1", type="primary", icon=":material/arrow_forward:", key="lesson_next",
                  on_click=go_to, args=(lesson, 1), disabled=closed,
                  help="Your teacher opens the first step for all." if closed else None)  # fmt: skip
        _way_out()


def _lesson_after(lesson: Lesson) -> None:
    heading(plain(lesson.title), "The same questions again.")
    _ask_twice(lesson, "after")
    with st.container(horizontal=True, gap="small"):
        st.button("Back", icon=":material/arrow_back:", key="lesson_back", on_click=go_to,
                  args=(lesson, state().step - 1))  # fmt: skip
        st.button("See the end", type="primary", icon=":material/arrow_forward:", key="lesson_next", on_click=go_to,
                  args=(lesson, state().step + 1))  # fmt: skip


def _ask_twice(lesson: Lesson, when: str) -> None:
    for question in lesson.twice:
        key = question.key.replace("before", when)
        asked(lesson, question, key, None, told=False)


def _lesson_end(lesson: Lesson) -> None:
    done = result(lesson)
    heading(plain(lesson.title), "What you have found.")
    st.markdown(markdown(lesson.end))
    if lesson.twice:
        st.markdown("\n".join(f"- {markdown(goal)}" for goal in lesson.goals))
    right, checked = done.right
    lines = [f"{right} of {checked} checked answers right in the end"] if checked else []
    if lesson.twice:
        before, after = done.score("before"), done.score("after")
        lines.append(f"before the lesson {before[0]} of {len(lesson.twice)} right, after it {after[0]}")
        _explained_twice(lesson)
    if lines:
        st.caption(f"{'; '.join(lines)}.".capitalize())
    now = progress(lesson)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        now.nickname = st.text_input("A name for the file, if you like", now.nickname, max_chars=40, key="lesson_nick")
        file = f"visit-{lesson.name}-result.json"
        st.download_button("Download your result", write_result(result(lesson)), file, "application/json",
                           icon=":material/download:", key="lesson_result", on_click="ignore")  # fmt: skip
    st.caption("The file holds your answers, times and hints, and which model and text they are of. Nothing is sent.")
    with st.container(horizontal=True, gap="small"):
        st.button("Back", icon=":material/arrow_back:", key="lesson_back", on_click=go_to,
                  args=(lesson, state().step - 1))  # fmt: skip
        _way_out("All lessons")


def _explained_twice(lesson: Lesson) -> None:
    """The questions that were asked twice, with the right answer and why."""
    given = progress(lesson).answers
    with st.expander(
        "The four questions" if len(lesson.twice) == 4 else "The questions", expanded=True, key="lesson_twice"
    ):
        for question in lesson.twice:
            st.markdown(f"**{markdown(question.text)}**")
            right = next((option for option in question.options if option.right), None)
            if question.kind == "choice" and right is not None:
                st.markdown(f"{markdown(right.text)} {markdown(right.why)}")
            elif question.explain:
                st.markdown(markdown(question.explain))
            one = given.get(question.key.replace("before", "after"))
            if question.kind == "choice" and one is not None and one.given.isdecimal() and not one.right:
                chosen = question.options[int(one.given)]
                st.caption(f"You chose “{markdown(chosen.text)}” {markdown(chosen.why)}")


def _way_out(label: str = "Other lessons") -> None:
    st.button(label, type="tertiary", key="lesson_leave", on_click=_leave)


def _leave() -> None:
    leave_lesson()
    session().notes = []
