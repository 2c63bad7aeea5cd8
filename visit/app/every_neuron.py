"""Every neuron of a model read as words: long work that is begun, watched and stopped in its place on the page."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import streamlit as st

from visit.app.cache import kept, st_model
from visit.app.follow import look_again, pressed
from visit.app.prompt_sets import SHARED, on_model, short_name, start_run, stop_run
from visit.app.sessions import draw_anew, session
from visit.errors import VisitError
from visit.runs.worker import SLOW, Run
from visit.text.markdown import escaped
from visit.text.numbers import duration

if TYPE_CHECKING:
    from visit.models.model import Model


UNASKED = 8.0  # seconds of forecast up to which nobody is asked: visit-mini is read while one looks
PATIENCE = 2.0  # … and for which the page waits for it


def every_neuron(model: Model, why: str) -> Any:
    """The static index if it is at hand, else None; then the place says what it takes, and how far it is.

    `why`: what cannot be shown without it, the beginning of a sentence.
    """
    from visit.lenses.weights import ROWS_PER_ITEM, StaticRun, found_index, rows_in_all, weights_key

    found = found_index(model)
    if found is not None:
        return found
    key, rows = ("static index", weights_key(model)), rows_in_all(model)

    def offer(text: str, label: str) -> None:
        st.caption(text)
        if pressed(label, "every neuron", ":material/play_arrow:"):
            start_run(key, on_model(model, StaticRun), SLOW)

    run = SLOW.find(key)
    if run is None:
        seconds = st_index_seconds(model.name)
        if seconds > UNASKED:
            offer(f"{why} once every neuron is read as words: {rows:,} rows of the weights, about {duration(seconds)}, "
                  "once for this model. The rest of the page does not wait for it.", "Read every neuron")  # fmt: skip
            return None
        run = SLOW.submit(key, on_model(model, StaticRun))
        with suppress(VisitError):  # told below
            run.wait(PATIENCE)
    if run.state == "done":
        return run.result
    if run.alive:
        look_again(1.0, _watch_rows, key, short_name(model), rows)
    elif run.error is not None:
        st.error(escaped(str(run.error)), icon=":material/error:")
        offer(f"{why} once every neuron is read as words.", "Try again")
    else:
        done = run.progress.done
        seconds = st_index_seconds(model.name) * (1 - done / max(1, run.progress.total))
        offer(f"Stopped after {done * ROWS_PER_ITEM:,} of {rows:,} rows, which are kept. {why} when all are read: "
              f"about {duration(seconds)} more.", "Resume")  # fmt: skip
    return None


@kept()
def st_index_seconds(name: str) -> float:
    """How long reading every neuron as words will take."""
    from visit.lenses.weights import forecast_seconds

    return forecast_seconds(st_model(name))


def _watch_rows(key: Any, name: str, rows: int) -> None:
    """How far it is, looked at again and again; when it ends the whole page follows."""
    run = SLOW.find(key)
    if run is None or not run.alive:
        draw_anew()
    assert run is not None
    run.look(session().visitor)
    st.progress(min(1.0, run.progress.done / max(run.progress.total, 1)), _rows_so_far(run, name, rows))
    st.button("Stop, and keep what is read", key="stop every neuron", help=SHARED, on_click=stop_run, args=(run,))


def _rows_so_far(run: Run, name: str, rows: int) -> str:
    """`Reading every neuron of SmolLM2 as words: 41,472 of 155,520 rows, about 70 s left`."""
    from visit.lenses.weights import ROWS_PER_ITEM  # rows of one item of the run

    now = run.progress
    start = f"Reading every neuron of {name} as words"
    if run.place:
        return f"{start}: waits for {run.place} other model{'s' if run.place > 1 else ''}"
    left = "" if now.seconds_left is None else f", about {duration(now.seconds_left)} left"
    return f"{start}: {min(rows, now.done * ROWS_PER_ITEM):,} of {rows:,} rows{left}"
