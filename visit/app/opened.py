"""Recordings on a page: *Open a recording*, the line that says what is open, and *Check* it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import streamlit as st

from visit.app.cache import kept, st_ledger, st_ledger_lines, st_model, st_pass, while_kept
from visit.app.follow import look_again
from visit.app.live import say
from visit.app.marks import named_part
from visit.app.measuring import Measuring
from visit.app.problems import comes_with_model
from visit.app.recorded import RECORDED_PAGES, open_recording, recorded_name, recording_named, run_named
from visit.app.sessions import change, close_dialog, draw_anew, open_dialog, session, state, take
from visit.app.shared import model_shelf
from visit.app.subject import Subject
from visit.app.tokens import token_box
from visit.app.widgets import component, folded, plain
from visit.errors import NotRecorded, VisitError
from visit.models import wheels
from visit.models.catalog import LISTED, MINI, display_name, is_hosted, title
from visit.text.glossary import explain
from visit.text.markdown import escaped
from visit.text.numbers import number, percent
from visit.text.visible import visible

if TYPE_CHECKING:
    from visit import Recording

UPLOAD_MB, HOSTED_MB = 64, 16  # of a file that is opened
NEEDS_MODEL = "This is a recording: what it does not hold needs the model."


# ---- which is open ---------------------------------------------------------------------------------------------------
def opened_recording() -> Recording | None:
    """The recording of the address; one that is not here is said, and the model is shown instead."""
    if not state().recording:
        return None
    try:
        return recording_named(state().recording)
    except VisitError as problem:
        st.info(escaped(str(problem)), icon=":material/inventory_2:")
        return None


def recorded_subject(side: str = "a") -> Subject:
    """What a page is about, from the open recording."""
    name = recorded_name(state().recording, side)
    (model, acts), run = st_pass(name, ""), run_named(name)[1]
    typed = acts.prompt if acts.chat is None else acts.chat.typed
    return Subject((name, typed), run.pos, run.target, run.distractor, *while_kept((name, typed), model, acts))


def recorded_bar(recording: Recording) -> Subject:
    """In the prompt bar's place: what is open, its text and tokens, and what comes next; nothing of it can be typed."""
    recorded_line(recording)
    if session().page not in RECORDED_PAGES:
        raise only_the_model()
    subject = recorded_subject()
    with named_part("prompt"), st.container(key="prompt_line", horizontal=True, vertical_alignment="top", gap="small"):
        st.text_input("Prompt", visible(recording.runs[0].prompt), label_visibility="collapsed", disabled=True,
                      key=f"recorded_prompt {state().recording}", help=NEEDS_MODEL)  # fmt: skip
        with st.container(key="prompt_tokens"):
            token_box(subject)
    rival = None if subject.distractor is None else plain(visible(subject.model.vocabulary[subject.distractor]))
    against = "" if rival is None else f" against “{rival}”"
    st.caption(
        f"Recorded at position {subject.pos} ({plain(subject.token)}), asked about “{plain(subject.word)}”{against}. "
        "Another position, word or text needs the model."
    )
    say(f"“{subject.word}” {percent(subject.chance)}, position {subject.pos} ({subject.token})")
    recorded_ledger(recording, recorded_name(state().recording))
    return subject


def recorded_line(recording: Recording) -> None:
    """One line above a page: that this is recorded, of which model and revision, when, on which machine."""
    meta, name = recording.meta, recording.model.name
    revision = str(recording.model.revision or "")
    with st.container(key="recorded_line", horizontal=True, vertical_alignment="center", gap="small"):
        st.badge("recorded", icon=":material/inventory_2:", color="orange")
        st.markdown(
            f"**{plain(name)}**{f' {plain(revision[:19])}' if revision else ''}, {plain(str(meta['made'])[:10])}",
            width="content", help=plain(f"Recorded {meta['made']} on {meta['machine']}."),
        )  # fmt: skip
        with folded("About it", "info", "recording_about"):
            _about_recording(recording)
        live = live_name(recording)
        if live:
            _check_menu(recording, live)
            st.button("Run the model", icon=":material/play_arrow:", key="recording_live", type="tertiary",
                      on_click=_go_live, args=(live,), help="The same text, live: all can be changed.")  # fmt: skip
        st.button("Close", icon=":material/close:", key="recording_close", type="tertiary", on_click=change,
                  kwargs={"recording": ""}, help="Back to the model.")  # fmt: skip


def _about_recording(recording: Recording) -> None:
    meta = recording.meta
    versions = ", ".join(f"{package} {number}" for package, number in meta["versions"].items())
    lens = "the plain lens" if meta["lens"] is None else str(meta["lens"]["name"])
    rows = {
        "Model": recording.model.name, "Revision": recording.model.revision or "–", "Type": recording.model.dtype,
        "Recorded": meta["made"], "Machine": meta["machine"], "By": versions, "Read through": lens,
    }  # fmt: skip
    st.markdown("  \n".join(f"**{name}** {plain(str(text))}" for name, text in rows.items()))
    if meta["note"]:
        st.caption(plain(visible(meta["note"])))
    st.caption("What stands on the pages was computed then, by that model. Nothing is computed now.")
    if not live_name(recording):
        st.caption(
            "To check it, or to run its text: open that model in the sidebar, in the same revision, then this file."
        )


def recorded_ledger(recording: Recording, name: str) -> None:
    """In the sidebar: how exactly the machine that recorded it read the model."""
    model = recording.model
    table = st_ledger(name)
    holds = bool(table["holds"].all())
    place = session().ledger = session().ledger.container()
    with place:
        st.caption(f"{model.family.name} · {model.n_layers} blocks × {model.n_heads} heads · {model.d_vocab:,} words")
        with st.expander("Numbers checked" if holds else "Numbers NOT exact", icon=":material/verified:"):
            st.caption(f"On the machine that recorded. {explain('ledger')}")
            st.caption(st_ledger_lines(name))


def live_name(recording: Recording) -> str:
    """The model at hand that made a recording; empty where there is none.

    A listed one by its name; another where it is the visitor's own, in memory, and has the recorded revision.
    """
    recorded, now = recording.model.name, state().model
    for name, one in LISTED.items():
        if display_name(name) == recorded and (name == MINI or (one.wheel and wheels.find(name) is not None)):
            return name
    if now in LISTED or display_name(now) != recorded or "torch" not in sys.modules:  # then no model is in memory
        return ""
    own = model_shelf().find(now)
    return now if own is not None and own.revision == recording.model.revision else ""


def _go_live(name: str) -> None:
    """The recorded text, position and words, with the model."""
    recording = recording_named(state().recording)
    typed = recording.runs[0].message
    values: dict[str, Any] = {"recording": "", "model": name, "chat": typed is not None,
                              "system": (typed and typed.system) or ""}  # fmt: skip
    for run, side in zip(recording.runs, ("", "_b"), strict=False):
        words = [run.words[run.target], "" if run.distractor is None else run.words[run.distractor]]
        pos = -1 if run.pos == len(run.tokens) - 1 else run.pos
        text = run.prompt if run.message is None else run.message.text
        values |= {f"{n}{side}": v for n, v in zip(("prompt", "pos", "target", "distractor"), (text, pos, *words),
                                                   strict=True)}  # fmt: skip
    change(**values)


def check_live() -> None:
    """On a page of which nothing can be recorded: say so while a recording is open. Raises `NotRecorded`."""
    if (recording := opened_recording()) is not None:
        recorded_line(recording)
        raise only_the_model()


def only_the_model() -> VisitError:
    """What is said on a page of which nothing is recorded."""
    return NotRecorded(
        "This page runs the model many times, and a recording is of one run: close it, or run the model."
    )


def not_recorded(subject: Subject, title: str) -> bool:
    """Say in a part's place that it is not recorded; True where the page is of a recording."""
    if subject.recorded is None:
        return False
    st.header(title, anchor=False)
    if subject.stands_in:
        comes_with_model()
        return True
    st.info(f"Not recorded. {NEEDS_MODEL}", icon=":material/inventory_2:")
    return True


# ---- open a recording ------------------------------------------------------------------------------------------------
def take_dropped() -> None:
    """Whatever page is shown, a recording that is dropped on it is opened. Call once a run."""
    with st.sidebar:
        component("drop", "<i hidden></i>")(key="drop", on_dropped_change=lambda: open_dialog("recording"))


@st.dialog("Open a recording", width="medium", icon=":material/inventory_2:", on_dismiss=close_dialog)
def open_dialog_recording() -> None:
    """A file that *Save this run* or `python -m visit record` has written, or one that is shipped."""
    from visit.files.shipped_recordings import shipped_recordings

    st.markdown(
        "The numbers of a run, without its model: saved by *Save run*, or by `python -m visit record`. Its file can "
        "also be dropped anywhere on a page."
    )
    if (name := upload_recording("recording_file")) is not None:
        _opened_here(name)
        draw_anew()
    if shipped := shipped_recordings():
        st.caption("Or one that comes with VISIT:")
        for asked, path in shipped.items():
            text = asked.prompt + (f" … {asked.prompt_b}" if asked.prompt_b else "")
            if st.button(f"{plain(title(asked.model))}: {plain(text)} …", key=f"recording {path.stem}",
                         type="tertiary"):  # fmt: skip
                _opened_here(path.stem)
                draw_anew()


def upload_recording(key: str) -> str | None:
    """The name of a recording that is dropped here; what is wrong with a file is said."""
    most = HOSTED_MB if is_hosted() else UPLOAD_MB
    file = st.file_uploader(f"Drop a file here: .visit, {most} MB at most", ["visit"], key=key, max_upload_size=most)
    if file is None:
        return None
    try:
        return open_recording(file.getvalue())
    except VisitError as problem:
        st.error(f"{plain(visible(file.name[:80]))}: {escaped(str(problem))}", icon=":material/error:")
        return None


def _opened_here(name: str) -> None:
    close_dialog()
    take(recording=name)
    if len(recording_named(name).runs) > 1:
        session().goto = "pages/compare.py"
    elif session().page not in RECORDED_PAGES:
        session().goto = "pages/flow.py"


# ---- check a recording -----------------------------------------------------------------------------------------------
@kept(weighs=1 << 18)
def st_checking(recording: str, model: str) -> Measuring:
    return Measuring()


def _check_menu(recording: Recording, live: str) -> None:
    """Replay some nodes with the model, and say by how much they differ."""
    box = st.popover("Check this recording", icon=":material/fact_check:", type="tertiary", key="recording_check",
                     on_change="rerun")  # fmt: skip
    if not box.open:
        return
    one = st_checking(recording.hash, live)
    with box:
        st.caption(
            "Computes some nodes and edges, drawn at random, a table of every kind, the attention patterns and the "
            f"sentences again with {plain(display_name(live))}, and compares their numbers."
        )
        if not one.begun.locked():
            st.button("Replay", key="recording_replay", type="primary", on_click=one.ask,
                      args=(lambda: recording.check(st_model(live)),))  # fmt: skip
        elif not one.ended.is_set():
            look_again(0.7, _watch, one, "Replaying…")
        elif one.problem is not None:
            st.error(escaped(str(one.problem)), icon=":material/error:")
        else:
            _checked_told(one.found)


def _checked_told(table: Any) -> None:
    off = table[~table["holds"]]
    if off.empty:
        st.success(
            f"{table.attrs['checked']} are the model’s: the largest difference is {table['difference'].max():.1e}.",
            icon=":material/verified:",
        )
    else:
        first = off.iloc[0]
        numbers = plain(f"recorded {first['recorded']}, replayed {first['replayed']}")
        st.error(
            f"{len(off)} of {len(table)} parts are not what the model computes, first {plain(str(first['node']))} "
            f"({numbers}). The file was edited, or other weights made it.",
            icon=":material/warning:",
        )
    words = {name: [visible(cell) if isinstance(cell, str) else "" if cell is None else number(cell)
                    for cell in table[name]] for name in ("recorded", "replayed")}  # fmt: skip
    st.dataframe(table.assign(**words), hide_index=True, height=220)


def _watch(one: Measuring, text: str) -> None:
    if one.ended.is_set():
        draw_anew()
    st.caption(f":material/hourglass_top: {text}")
