"""Prompt sets on a page: choose, paste or upload one, keep what the model answers, and watch the run of it.

How many of its shipped prompts a model answers is counted once, by one run in the background, and kept on disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import streamlit as st

from visit.app.fields import field, segments
from visit.app.follow import look_again, pressed
from visit.app.sessions import draw_anew, session, state
from visit.app.shared import kept_set, model_shelf
from visit.app.state import value_of
from visit.app.widgets import plain, unfolding
from visit.errors import VisitError
from visit.models.catalog import is_hosted
from visit.runs.answers import ANSWERED_RUN, Answered, answering, fitting, run_key
from visit.runs.prompts import MAX_SET_BYTES, NOTES_SHOWN, PromptSet, all_shipped, read_prompts, shipped, shipped_set
from visit.runs.worker import WORKER, Run, Worker
from visit.text.markdown import escaped
from visit.text.numbers import duration

if TYPE_CHECKING:
    from visit.models.model import Model

OWN = "own"
HOSTED_PROMPTS = 1_000  # of a set on a hosted app: a run of one visitor must not keep the others waiting for an hour
COUNTED_UNASKED = 1_000_000_000  # parameters; what a larger model answers is counted when somebody wants it


def choose_set(model: Model, filtered: bool = True, control: str = "set") -> PromptSet | None:
    """The set that a page's figures are about; None while there is nothing usable to run.

    `filtered`: offer to keep only what the model answers correctly; `control`: the field of the state that names it.
    """
    names = [*shipped(model.name), OWN]
    wanted = value_of(state(), control)
    name = wanted if wanted in names else names[0]
    count = _count(model)
    st.segmented_control("Prompt set", required=True, wrap=True,
                         help="A set of prompts; every number below is about the last token of each. Answered: "
                              "the model's most probable next word is the one that the set expects.",
                         **segments(control, names, _labels(model, count)))  # fmt: skip
    if filtered:
        st.checkbox("Only prompts that the model answers correctly", help="As in the paper: needs a target for each "
                                                                          "prompt.",
                    **field("answered"))  # fmt: skip
    if name != wanted:
        st.info(f"The set “{plain(wanted)}” does not come with {short_name(model)}; {name} is taken.",
                icon=":material/link:")  # fmt: skip
    only = filtered and bool(state().answered)
    if count and count.alive and not (only and name != OWN):
        look_again(1.5, _counting, count.key, short_name(model))
    try:
        found = _own_set() if name == OWN else shipped_set(name, model.name)
    except VisitError as problem:
        st.error(escaped(str(problem)), icon=":material/error:")
        return None
    if found is None:
        return None
    if is_hosted() and len(found.rows) > HOSTED_PROMPTS:
        st.caption(f"This app is hosted for many: {HOSTED_PROMPTS:,} of the {len(found.rows):,} prompts are taken, "
                   "evenly spread.")  # fmt: skip
        found = part_of(found, HOSTED_PROMPTS)
    found = readable(model, found, only)
    if only:
        part = _answered(model, found, of=found if name == OWN else all_shipped(model.name))
        if part is None:
            return None
        found = part.kept
    _notes(found)
    if not found.rows:
        st.info("No prompt of this set is left to run.", icon=":material/info:")
        return None
    return found


def _answered(model: Model, asked: PromptSet, of: PromptSet) -> Answered | None:
    """What the model answers of a set, found by a run over `of`, which holds it; None before every row was asked."""
    key, make = run_key(ANSWERED_RUN, model, of), on_model(model, lambda model: answering(model, of))
    run = WORKER.find(key)
    if run is not None and run.alive and run.background:
        WORKER.submit(key, make)  # somebody waits for it now
    run = watched(("answered", of.hash), key, make)
    if run is None or run.result is None:
        return None
    part = run.result.among(asked)
    st.caption(f"{part}.")
    return None if run.alive and part.looked_at < part.asked else part


def _count(model: Model) -> Run | None:
    """The run that counts which shipped prompts a model answers: found, remembered on disk, or begun."""
    every = all_shipped(model.name)
    key, make = run_key(ANSWERED_RUN, model, every), on_model(model, lambda model: answering(model, every))
    run = WORKER.find(key) or WORKER.recall(key, make)
    if run is None and sum(weight.numel() for weight in model.hf.parameters()) <= COUNTED_UNASKED:
        with suppress(VisitError):  # too many runs wait; another time
            run = WORKER.submit(key, make, background=True)
    return run


def _counting(key: Any, name: str) -> None:
    """How far the count is; when it ends the page follows, and every set says its number."""
    run = WORKER.find(key)
    if run is None or not run.alive:
        draw_anew()
    assert run is not None
    now = run.progress
    far = f": {now.done:,} of {now.total:,} prompts" if now.total else ""
    st.caption(f":material/hourglass_top: What {name} answers of its sets is being counted{far}. Go on meanwhile.")


def _labels(model: Model, count: Run | None) -> Callable[[str], str]:
    """Every set's name with its size and, once that is known, how many of its prompts the model answers."""

    def label(name: str) -> str:
        if name == OWN:
            return "paste or upload"
        own = shipped_set(name, model.name)
        if count is None or count.state != "done":
            return f"{name} ({len(own.rows):,})"
        part = count.result.among(own)
        return f"{name} ({len(part.kept.rows):,} of {part.asked:,} answered)"

    return label


def short_name(model: Model) -> str:
    """The last part of a model's name, as it may stand in a text of the page."""
    return plain(model.name.rstrip("/").split("/")[-1])


def _own_set() -> PromptSet | None:
    """A pasted or uploaded set. It stays in this visitor's session and goes nowhere else."""
    left, right = st.columns(2, gap="medium")
    text = left.text_area(
        "Prompts, one a line (or CSV, JSON Lines with a column prompt)", key="own_prompts", height=140
    )
    most = MAX_SET_BYTES >> 20
    file = right.file_uploader(f"Or a file: .txt, .csv, .jsonl, {most} MB at most", ["txt", "csv", "jsonl"],
                               max_upload_size=most)  # fmt: skip
    if file is not None:
        return own_set(file.getvalue(), file.name)
    if text.strip():
        return own_set(text.encode("utf-8", "surrogatepass"))
    st.info("Paste prompts, or choose a file.", icon=":material/edit:")
    return None


def own_set(content: bytes, name: str | None = None) -> PromptSet:
    """A pasted or uploaded set, by its content."""
    return kept_set(("read", hashlib.sha256(content).digest(), name), lambda: read_prompts(content, name))


def part_of(promptset: PromptSet, count: int) -> PromptSet:
    """A part of a set, which is the same object as long as the set is."""
    return kept_set(("spread", promptset.identity, count), lambda: promptset.spread(count))


def readable(model: Model, promptset: PromptSet, targets: bool) -> PromptSet:
    """The prompts of a set that a model can read."""
    key = "fitting", model_shelf().edition(model.name), promptset.identity, targets
    return kept_set(key, lambda: fitting(model, promptset, targets))


def _notes(found: PromptSet) -> None:
    if found.notes:
        label = f"{len(found.notes)} rows are left out; {len(found.rows):,} run"
        with unfolding("left-out", label, ":material/warning:") as opened:
            for note in found.notes[: NOTES_SHOWN if opened else 0]:
                st.caption(plain(str(note)))


def watched(
    name: Any, key: Any, make: Callable[[], Any], label: str = "Run", start: Callable[[], None] | None = None,
    follow: int | None = None,
) -> Run | None:  # fmt: skip
    """The run of a key, started by a button, watched while it goes on, its result so far shown meanwhile.

    Returns None before it was started. A run lives in the process: closing the tab does not stop it. One that was
    finished before, by whomever, needs no button: its result is on disk. `start`: what stands in the button's place;
    `follow`: items done after which the whole page is run anew, because it then shows more.
    """
    run = WORKER.find(key) or WORKER.recall(key, make)
    if run is None or (run.state in ("cancelled", "failed") and run.result is None):
        if run is not None and run.error is not None:
            st.error(escaped(str(run.error)), icon=":material/error:")
        if start is not None:
            start()
        elif pressed(label, f"run {name}", ":material/play_arrow:", primary=True):
            start_run(key, make)
        return None
    if run.alive or run.stopping:
        look_again(0.7, _watch_run, key, str(name), None if follow is None or run.progress.done >= follow else follow)
    elif run.state != "done":
        st.caption(f"Stopped after {_done_so_far(run)}; the figures are of these.")
        if pressed("Resume", f"go {name}"):
            start_run(key, make)
    return run


def _done_so_far(run: Run) -> str:
    now = run.progress
    return now.doing or f"{now.done:,} of {now.total:,} prompts"


def on_model(model: Model, make: Callable[[Model], Any]) -> Callable[[], Any]:
    """What makes a job when its turn comes. It names its model and takes it from the pool then.

    Jobs that wait, each with a model of its own, would hold more models in memory than the pool allows.
    """
    from visit.models.fingerprint import fingerprint

    shelf, name, weights = model_shelf(), model.name, fingerprint(model)

    def made() -> Any:
        found = shelf.get(name)
        if fingerprint(found) != weights:
            raise VisitError(f"{name!r} has changed since this run was asked for. Start it again.")
        return make(found)

    return made


def start_run(key: Any, make: Callable[[], Any], worker: Worker = WORKER) -> None:
    """Start a run, or go on with it, and look at it. On a hosted app a visitor has one: the one before is given up."""
    worker.submit(key, make, visitor=session().visitor if is_hosted() else None)
    draw_anew()


def stop_run(run: Run) -> None:
    """Stop a run; on a hosted app, where somebody else waits for it, wait no longer."""
    if is_hosted():
        run.leave(session().visitor)
    else:
        run.cancel()


def waits_for(run: Run) -> str:
    """`3 before you, about 40 s`, empty where nobody is."""
    if not run.place:
        return ""
    seconds = run.seconds_before
    return f"{run.place} before you" + ("" if seconds is None else f", about {duration(seconds)}")


def _watch_run(key: Any, name: str, follow: int | None) -> None:
    """A progress bar that looks again by itself; when the run ends, or comes to `follow`, the whole page follows."""
    run = WORKER.find(key)
    if run is None or not (run.alive or run.stopping) or (follow is not None and run.progress.done >= follow):
        draw_anew()
    assert run is not None
    run.look(session().visitor)
    now, waits = run.progress, waits_for(run)
    if run.stopping:
        text = "Stops after the step at hand…"
    elif waits:
        text = waits
    elif now.rate:
        text = f"{_done_so_far(run)}; about {duration(now.seconds_left or 0)} left"
    else:
        text = "Begins…"
    st.progress(min(1.0, now.share), text)
    if not run.stopping:
        st.button("Stop, and keep what is done", key=f"stop {name}", help=SHARED, on_click=stop_run, args=(run,))


SHARED = "Equal requests share one run: where somebody else waits for it, it goes on for them. Everybody can resume it."
