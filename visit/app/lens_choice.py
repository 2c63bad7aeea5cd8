"""Which lens the pages read the stream through: one switch for map, graph, reading and comparison, and the fit itself.

A model whose plain lens reads little is read through its fitted lens wherever there is one, and offered a fit where
there is none; every other model is read plainly until somebody asks for the fitted lens. A fit is a run of the slow
lane: it goes on when the tab is closed, can be stopped and resumed, and its lens is there for all. On the embedded
model it takes seconds and begins by itself, when the page is drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import streamlit as st

from visit.app.cache import PLAIN, Seen, kept, lens_under, st_lens, st_model
from visit.app.fields import listed, segments
from visit.app.follow import look_again
from visit.app.prompt_sets import SHARED, on_model, stop_run, waits_for
from visit.app.recorded import is_recorded, recorded_lens, stands_in
from visit.app.sessions import draw_anew, session, state
from visit.app.widgets import plain
from visit.errors import VisitError
from visit.models.catalog import MINI, is_hosted, memory_at_hand, title
from visit.runs.worker import SLOW, Run
from visit.text.glossary import explain
from visit.text.markdown import escaped
from visit.text.numbers import duration, percent, size_text

if TYPE_CHECKING:
    import pandas as pd

    from visit.lenses.linear import Lens
    from visit.models.model import Model

LENSES = ("plain", "fitted")
AGREES = 0.3  # of the positions: where fewer have the final top word already, a plain lens reads little


# ---- what is chosen --------------------------------------------------------------------------------------------------
def seen(*models: str) -> tuple[Seen, ...]:
    """How each side's states are read, as the switch says: all through their models' fitted lenses, or all plainly."""
    if is_recorded(models[0]):  # through which lens it was read is no choice any more
        return tuple(PLAIN if recorded_lens(name) is None else ("recorded", False) for name in models)
    found = [st_lens(name) for name in models]
    wanted = state().reads
    fitted = wanted == "fitted" or (
        wanted == "auto" and any(f.lens is not None and reads_little(f.lens) for f in found)
    )
    session().looked["fitted"] = fitted and all(f.lens is not None for f in found)
    if not session().looked["fitted"]:
        return (PLAIN,) * len(models)
    return tuple((f.key, state().graph.carried) for f in found)


def reads_little(lens: Lens) -> bool:
    """Whether this model's plain lens reads little in more than half of its blocks."""
    return lens.plain_readable_from > lens.meta["n_layers"] / 2


def switch(models: tuple[str, ...]) -> None:
    """`Lens: plain | fitted`."""
    if is_recorded(models[0]) and not stands_in(models[0]):
        st.caption("Read as it was recorded: another lens needs the model.")
        return
    st.segmented_control("Lens", required=True, help=explain("fitted lens"),
                         **segments("reads", LENSES, chosen=_lens_shown(models)))  # fmt: skip


def in_list(models: tuple[str, ...]) -> None:
    """The same as a list, among the controls of a graph."""
    if is_recorded(models[0]) and not stands_in(models[0]):
        return
    st.selectbox("Lens", help=explain("fitted lens"), **listed("reads", LENSES, _lens_shown(models), "_graph"))


def _lens_shown(models: tuple[str, ...]) -> str:
    return "fitted" if state().reads == "fitted" or seen(*models)[0] != PLAIN else "plain"


def heading(name: str, key: str) -> str:
    """`fitted on 8,000 tokens that the model wrote`, for a heading; empty for the plain lens."""
    lens = lens_under(name, key) if key else None
    return "" if lens is None else plain(lens.name)


# ---- what is said of it ----------------------------------------------------------------------------------------------
def told(model: str, table: pd.DataFrame | None = None, aside: Any = None) -> None:
    """One line on how well the plain lens reads this model, and the fit where it is wanted, offered or going on.

    `table`: the plain lens map of the pass on screen, which tells it before there is a lens; `aside`: where stands
    what asks for nothing, beside the switch; None: here.
    """
    if is_recorded(model):
        return
    found = st_lens(model)
    if found.lens is not None:
        (aside or st).caption(_of_report(found.lens, state().reads == "fitted" or seen(model)[0] != PLAIN))
        if not found.kept:
            st.caption(":material/info: The cache folder cannot be written, so this lens is there until the app ends.")
        return
    if found.problem:
        st.warning(f"The file of this model's lens cannot be used: {plain(found.problem)} Read plainly meanwhile.",
                   icon=":material/broken_image:")  # fmt: skip
    first = None if table is None else plain_from(table)
    little = first is not None and table is not None and first > table["layer"].max() / 2
    run = SLOW.find(_fit_key(model))
    if run is None and model == MINI and not found.problem:
        st.caption("A lens is fitted to this small model in a few seconds; it is read plainly meanwhile.")
        look_again(1.0, _begin_alone, model)
        return
    if run is not None or little or found.problem or state().reads == "fitted":
        if little:
            st.caption(
                f"The plain lens reads little in this model before block {first}.",
                help="Only from there on its top word is the model's final one at three of ten positions of this "
                     "prompt.",
            )  # fmt: skip
        elif state().reads == "fitted":
            st.caption("No lens is fitted to this model yet: it is read plainly.")
        _fit_or_bar(model, run)


def plain_from(table: pd.DataFrame) -> int:
    """The first block from which on the plain lens's top word is the final one at three of ten positions or more.

    `table`: `overview.lens_map` of one pass. The first position, where attention rests, is left out.
    """
    table = table[table["pos"] > 0] if table["pos"].nunique() > 1 else table
    final = table[table["depth"] == table["depth"].max()].set_index("pos")["top"]
    same = (table["top"] == table["pos"].map(final)).groupby(table["layer"]).mean()
    below = [int(layer) for layer, share in same.items() if share < AGREES]
    return max(below, default=-1) + 1


def _of_report(lens: Lens, fitted: bool) -> str:
    first = lens.plain_readable_from
    last = lens.meta["n_layers"] - 1
    if reads_little(lens):
        return (
            f"The plain lens reads little in this model before block {first}. "
            + (f"The fitted one is held against text that it was not fitted to: before block {lens.readable_from} it, "
               "too, shows mostly what any text leads to expect." if fitted else "Through the fitted one more is read.")
        )  # fmt: skip
    where = "after every block" if not first else f"from block {first} of {last} on"
    least = percent(float(lens.report["top1_plain"][first:].min()))
    return (
        f"The plain lens has the model's final word on top at {least} of positions or more {where}, so it is what "
        "opens; the fitted one comes nearer."
    )


# ---- the fit ---------------------------------------------------------------------------------------------------------
def _fit_key(model: str) -> Any:
    from visit.lenses.fit_linear import LensFit
    from visit.models.fingerprint import fingerprint

    return "lens", LensFit.version, fingerprint(st_model(model))


def _fit_job(name: str) -> Callable[[], Any]:
    def make(model: Model) -> Any:
        from visit.lenses.fit_linear import LensFit

        return LensFit(model, keeps=True)

    return on_model(st_model(name), make)


def _begin_alone(name: str) -> None:
    """Begin the embedded model's fit, once its page is drawn."""
    with suppress(VisitError):  # too many runs wait; another time
        SLOW.submit(_fit_key(name), _fit_job(name), background=True)
        draw_anew()


def _fit_or_bar(name: str, run: Run | None) -> None:
    """The fit's button, or its bar."""
    key = _fit_key(name)
    if run is not None and (run.alive or run.stopping):
        look_again(1.0, _watch_fit, key, name)
    elif run is None or run.state == "done":  # done, and its file is gone or damaged
        _offer_fit(name, f"Fit a lens for this model (about {duration(st_fit_seconds(name))}, once)", "auto_fix_high")
    elif run.error is not None:
        st.error(escaped(str(run.error)), icon=":material/error:")
        _offer_fit(name, "Try again", "replay")
    else:
        left = duration(st_fit_seconds(name) * (1 - run.progress.share))
        st.caption(f"The fit of a lens was stopped; what is written is kept. About {left} more.")
        _offer_fit(name, "Resume", "play_arrow")


@kept()
def st_fit_seconds(name: str) -> float:
    """How long fitting a lens will take."""
    from visit.lenses.fit_linear import forecast_seconds

    return forecast_seconds(st_model(name))


def _offer_fit(name: str, label: str, icon: str) -> None:
    from visit.lenses.fit_linear import fit_bytes

    need, free = fit_bytes(st_model(name)), memory_at_hand()
    if need > free:
        st.caption(f"A lens for this model takes {size_text(need)} of memory to fit, and {size_text(free)} can be had.")
        return
    st.button(label, key="fit lens", icon=f":material/{icon}:", help=explain("fitted lens"), on_click=_begin_fit,
              args=(name,))  # fmt: skip


def _begin_fit(name: str) -> None:
    """Begin a fit or go on with it; one that was done in this process and whose file has gone is kept again."""
    from visit.lenses.linear import keep_lens

    run = SLOW.find(_fit_key(name))
    if run is not None and run.state == "done":
        keep_lens(st_model(name), run.result)
        return
    try:
        SLOW.submit(_fit_key(name), _fit_job(name), visitor=session().visitor if is_hosted() else None)
    except VisitError as problem:
        session().notes = [str(problem)]


def _watch_fit(key: Any, name: str) -> None:
    """How far the fit is, looked at again and again; when it ends the whole page follows."""
    run = SLOW.find(key)
    if run is None or not (run.alive or run.stopping):
        draw_anew()
    assert run is not None
    run.look(session().visitor)
    now, waits = run.progress, waits_for(run)
    start = f"Fitting a lens to {plain(title(name))}"
    left = "" if now.seconds_left is None else f", about {duration(now.seconds_left)} left"
    if run.stopping:
        text = "Stops after the step at hand…"
    elif waits:
        text = f"{start}: {waits}"
    else:
        text = f"{start}: {now.doing or 'begins'}{left}"
    st.progress(min(1.0, now.share), text)
    if not run.stopping:
        st.button("Stop, and keep what is written", key="stop fit", help=SHARED, on_click=stop_run, args=(run,))


def followed(models: tuple[str, ...], read: tuple[Seen, ...]) -> None:
    """In a fragment that was given how states are read: the whole page follows a switch that was turned inside it."""
    if seen(*models) != read:
        draw_anew()
