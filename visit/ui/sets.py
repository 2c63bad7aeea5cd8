"""Prompt sets on a page: choose, paste or upload one, keep what the model answers, and watch the run of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import streamlit as st

from visit.errors import VisitError
from visit.model import Model
from visit.promptfile import MAX_BYTES, NOTES_SHOWN, PromptSet, read_prompts, shipped, shipped_set
from visit.promptset import Answering, fitting, run_key
from visit.ui import graphs
from visit.ui.prompt import plain
from visit.ui.state import change, field, state
from visit.worker import WORKER, Run, Worker

OWN = "own"


def choose_set(model: Model, filtered: bool = True) -> PromptSet | None:
    """The set that a page's figures are about; None while there is nothing usable to run.

    `filtered`: offer to keep only what the model answers correctly.
    """
    with graphs.beside("sets"):
        left, right = st.columns([3, 2], gap="medium", vertical_alignment="bottom")
    with left:
        names = [*shipped(), OWN]
        st.segmented_control("Prompt set", names, required=True, wrap=True, format_func=_named, **field("set"),
                             help="A set of prompts; every number below is about the last token of each.")  # fmt: skip
    if filtered:
        right.checkbox("Only prompts that the model answers correctly", help="As in the paper: needs a target for each "
                                                                             "prompt.",
                       **_checked("answered"))  # fmt: skip
    try:
        found = _own() if state().set == OWN else shipped_set(state().set)
    except VisitError as problem:
        st.error(str(problem), icon=":material/error:")
        return None
    if found is None:
        return None
    only = filtered and bool(state().answered)
    found = fitting(model, found, targets=only)
    if only:
        asked = found
        run = watched(("answered", asked.hash), run_key("answered", model, asked), lambda: Answering(model, asked))
        if run is None or run.result is None:
            return None
        st.caption(f"{run.result}.")
        found = run.result.kept
    _notes(found)
    if not found.rows:
        st.info("No prompt of this set is left to run.", icon=":material/info:")
        return None
    return found


def _named(name: str) -> str:
    return "paste or upload" if name == OWN else f"{name} ({len(shipped_set(name).rows)})"


def _checked(name: str) -> dict[str, Any]:
    """A checkbox tied to a field of the state, which holds "1" or nothing."""
    key = f"w_{name}"
    wanted = bool(getattr(state(), name))
    if st.session_state.get(key) != wanted:
        st.session_state[key] = wanted
    return {"key": key, "on_change": lambda: change(**{name: "1" if st.session_state[key] else ""})}


def _own() -> PromptSet | None:
    """A pasted or uploaded set. It stays in this visitor's session and goes nowhere else."""
    left, right = st.columns(2, gap="medium")
    text = left.text_area(
        "Prompts, one a line (or CSV, JSON Lines with a column prompt)", key="own_prompts", height=140
    )
    file = right.file_uploader(f"Or a file: .txt, .csv, .jsonl, {MAX_BYTES >> 20} MB at most", ["txt", "csv", "jsonl"],
                               max_upload_size=MAX_BYTES >> 20)  # fmt: skip
    if file is not None:
        return read_prompts(file.getvalue(), file.name)
    if text.strip():
        return read_prompts(text)
    st.info("Paste prompts, or choose a file.", icon=":material/edit:")
    return None


def _notes(found: PromptSet) -> None:
    if found.notes:
        with st.expander(f"{len(found.notes)} rows are left out; {len(found.rows):,} run", icon=":material/warning:"):
            for note in found.notes[:NOTES_SHOWN]:
                st.caption(plain(str(note)))


def watched(name: Any, key: Any, make: Callable[[], Any], label: str = "Run") -> Run | None:
    """The run of a key, started by a button, watched while it goes on, its result so far shown meanwhile.

    Returns None before it was started. A run lives in the process: closing the tab does not stop it. One that was
    finished before, by whomever, needs no button: its result is on disk.
    """
    run = WORKER.find(key) or WORKER.recall(key, make)
    if run is None or (run.state in ("cancelled", "failed") and run.result is None):
        if run is not None and run.error is not None:
            st.error(str(run.error), icon=":material/error:")
        if st.button(label, key=f"run {name}", type="primary", icon=":material/play_arrow:"):
            begin(key, make)
        return None
    done, total = run.progress.done, run.progress.total
    if run.alive and key in left():
        st.caption(f"The run goes on for others who watch it; the figures are of {done:,} of {total:,} prompts.")
        if st.button("Watch it again", key=f"again {name}"):
            begin(key, make)
    elif run.alive:
        _watch(key, str(name))
    elif run.state != "done":
        st.caption(f"Stopped after {done:,} of {total:,} prompts; the figures are of these.")
        if st.button("Go on", key=f"go {name}"):
            begin(key, make)
    return run


def begin(key: Any, make: Callable[[], Any], worker: Worker = WORKER) -> None:
    """Start a run, or go on with it, and look at it."""
    left().discard(key)
    worker.submit(key, make).watch(visitor())
    st.rerun()


def visitor() -> str:
    """A name for this session among those who watch a run."""
    return st.session_state.setdefault("visit_visitor", uuid4().hex)


def left() -> set[Any]:
    """Keys of the runs that this session has stopped while others watched them."""
    return st.session_state.setdefault("visit_left", set())


@st.fragment(run_every=0.7)
def _watch(key: Any, name: str) -> None:
    """A progress bar that looks again by itself; when the run ends the whole page follows."""
    run = WORKER.find(key)
    if run is None or not run.alive:
        st.rerun()
    assert run is not None
    run.watch(visitor())
    now, place = run.progress, run.place
    if place:
        text = f"Waits for {place} other run{'s' if place > 1 else ''}"
    elif now.rate:
        text = f"{now.done:,} of {now.total:,} prompts, {now.rate:,.0f} a second, {now.seconds_left or 0:,.0f} s left"
    else:
        text = "Begins…"
    st.progress(min(1.0, now.done / max(now.total, 1)), text)
    shared = "Equal requests share one run: where somebody else watches this one, it goes on for them."
    if st.button("Stop, and keep what is done", key=f"stop {name}", help=shared):
        if not run.leave(visitor()):
            left().add(key)
        st.rerun()
