"""Every neuron as words, for what asks all of them: a run of its own lane, told before it starts, watched, stopped."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import streamlit as st

from visit.app.prompt_bar import plain
from visit.app.prompt_sets import begin, left
from visit.app.sentences import duration
from visit.app.state import visitor
from visit.errors import VisitError
from visit.models.model import Model
from visit.runs.worker import SLOW, Run

AT_ONCE = 8.0  # seconds of forecast up to which nobody is asked: visit-mini is read while one looks
PATIENCE = 2.0  # … and for which the page waits for it


@st.cache_resource(max_entries=8, show_spinner=False)
def _st_forecast(name: str, revision: str, _model: Model) -> float:
    from visit.lenses.weights import forecast_seconds

    return forecast_seconds(_model)


def every_neuron(model: Model, why: str) -> Any:
    """The static index if it is at hand, else None; then the place says what it takes, and how far it is.

    `why`: what cannot be shown without it, the beginning of a sentence.
    """
    from visit.lenses.weights import found_index, rows_in_all

    found = found_index(model)
    if found is not None:
        return found
    key, rows = _key(model), rows_in_all(model)
    run = SLOW.find(key)
    if run is None:
        seconds = _st_forecast(model.name, model.revision, model)
        if seconds > AT_ONCE:
            _offer(model, f"{why} once every neuron is read as words: {rows:,} rows of the weights, about "
                   f"{duration(seconds)}, once for this model. The rest of the page does not wait for it.",
                   "Read every neuron")  # fmt: skip
            return None
        run = SLOW.submit(key, _job(model))
        with suppress(VisitError):  # told below
            run.wait(PATIENCE)
    if run.state == "done":
        return run.result
    if run.alive:
        _watch(key, _short(model), rows)
    elif run.error is not None:
        st.error(str(run.error), icon=":material/error:")
        _offer(model, f"{why} once every neuron is read as words.", "Try again")
    else:
        now = run.progress
        left = _st_forecast(model.name, model.revision, model) * (1 - now.done / max(1, now.total))
        _offer(model, f"Stopped after {_read(run):,} of {rows:,} rows, which are kept. {why} when all are read: "
               f"about {duration(left)} more.", "Go on")  # fmt: skip
    return None


def _key(model: Model) -> tuple[str, str]:
    from visit.lenses.weights_disk import weights_key

    return "static index", weights_key(model)


def _job(model: Model) -> Any:
    from visit.lenses.weights import StaticRun

    return lambda: StaticRun(model)


def _short(model: Model) -> str:
    return model.name.rstrip("/").split("/")[-1]


def _offer(model: Model, text: str, label: str) -> None:
    st.caption(text)
    if st.button(label, key="every neuron", icon=":material/play_arrow:"):
        begin(_key(model), _job(model), SLOW)


@st.fragment(run_every=1.0)
def _watch(key: Any, name: str, rows: int) -> None:
    """How far it is, looked at again and again; when it ends the whole page follows."""
    run = SLOW.find(key)
    if run is None or not run.alive:
        st.rerun()
    assert run is not None
    st.progress(min(1.0, run.progress.done / max(run.progress.total, 1)), said(run, name, rows))
    if key in left():
        st.caption("It goes on for others who wait for it.")
        return
    run.watch(visitor())
    shared = "It goes on from there when somebody asks again. Where others wait for it, it goes on for them."
    if st.button("Stop, and keep what is read", key="stop every neuron", help=shared):
        if not run.leave(visitor()):
            left().add(key)
        st.rerun()


def _read(run: Run) -> int:
    """Rows: an item of the run is several of them."""
    from visit.lenses.weights import STEP

    return run.progress.done * STEP


def said(run: Run, name: str, rows: int) -> str:
    """`Reading every neuron of SmolLM2 as words: 41,472 of 155,520 rows, about 70 s left`."""
    now = run.progress
    start = f"Reading every neuron of {plain(name)} as words"
    if run.place:
        return f"{start}: waits for {run.place} other model{'s' if run.place > 1 else ''}"
    left = "" if now.seconds_left is None else f", about {duration(now.seconds_left)} left"
    return f"{start}: {min(rows, _read(run)):,} of {rows:,} rows{left}"
