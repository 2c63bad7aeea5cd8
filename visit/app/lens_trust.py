"""Why one may believe a fitted lens: its controls over prompts that the model answers, run when somebody asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import streamlit as st

from visit.app.cache import lens_under, st_model
from visit.app.follow import look_again
from visit.app.prompt_sets import SHARED, on_model, stop_run, waits_for
from visit.app.sessions import draw_anew, session
from visit.app.widgets import downloads, in_cells, plain, unfolding
from visit.errors import VisitError
from visit.models.catalog import is_hosted
from visit.runs.worker import SLOW
from visit.text.markdown import escaped
from visit.text.numbers import duration

if TYPE_CHECKING:
    import pandas as pd

    from visit.lenses.linear import Lens
    from visit.models.model import Model

PROMPTS, ASKED = 24, 72  # that the controls run, and that the model is asked to find so many that it answers


def why_believe(name: str, lens: Lens, key: str) -> None:
    """An expander with what could have failed and did not: nothing of it is computed before it is opened and asked."""
    with unfolding("why-lens", "Why believe this lens?", ":material/fact_check:") as opened:
        if not opened:
            return
        st.caption(
            "A map that is fitted to text could make any state look like an answer. Four things would show it: the "
            "distance on text that it was not fitted to (above), wrong answers that rank high, words that fit any "
            "prompt as well, and answers that are named long before they arrive."
        )
        _show_controls(name, lens, key)


def _show_controls(name: str, lens: Lens, key: str) -> None:
    from visit.lenses.trust import ControlRun
    from visit.narrate.lens import trusted

    about = "lens", ControlRun.version, key
    run = SLOW.find(about)
    if run is None or run.state in ("cancelled", "failed"):
        if run is not None and run.error is not None:
            st.error(escaped(str(run.error)), icon=":material/error:")
        label = f"Run the controls over {PROMPTS} prompts" if run is None else "Go on with the controls"
        st.button(
            label, key="controls", icon=":material/play_arrow:", on_click=_begin_controls, args=(about, name, key)
        )
        return
    if run.alive or run.stopping:
        look_again(1.0, _watch_controls, about)
        return
    table = run.result
    for sentence in trusted(table):
        st.markdown(f"- {plain(sentence)}")
    _control_table(table.merge(lens.report, on="layer"))
    downloads("lens-controls", lambda: (lens.meta, {"report": lens.report, "controls": table}))


def _begin_controls(about: Any, name: str, key: str) -> None:
    try:
        SLOW.submit(about, _control_job(name, key), visitor=session().visitor if is_hosted() else None)
    except VisitError as problem:  # too many runs wait
        session().notes = [str(problem)]


def _control_job(name: str, key: str) -> Callable[[], Any]:
    lens = lens_under(name, key)

    def make(model: Model) -> Any:
        from visit.lenses.trust import ControlRun
        from visit.runs.answers import fitting, right
        from visit.runs.prompts import shipped_set

        assert lens is not None
        rows = fitting(model, shipped_set("facts", model.name), targets=True).spread(ASKED).rows
        known = [row.prompt for row, good in zip(rows, right(model, rows), strict=True) if good] if rows else []
        if len(known) < 2:
            raise VisitError("The controls need prompts that the model answers, and it answers none of the facts here.")
        return ControlRun(model, lens, known[:PROMPTS])

    return on_model(st_model(name), make)


def _watch_controls(about: Any) -> None:
    """How far the controls are; when they end the page follows."""
    run = SLOW.find(about)
    if run is None or not (run.alive or run.stopping):
        draw_anew()
    assert run is not None
    now = run.progress
    left = "" if now.seconds_left is None else f", about {duration(now.seconds_left)} left"
    run.look(session().visitor)
    waits = waits_for(run)
    st.progress(min(1.0, now.share), waits or f"{now.done} of {now.total or '…'} blocks{left}")
    if not run.stopping:
        st.button("Stop, and keep what is done", key="stop controls", help=SHARED, on_click=stop_run, args=(run,))


def _control_table(table: pd.DataFrame) -> None:
    share = st.column_config.NumberColumn
    cells = in_cells(table[_COLUMNS].sort_values("layer", ascending=False), _SHARES, ["right_rank", "wrong_rank"])
    st.dataframe(
        cells, hide_index=True, height=380,
        column_config={
            "layer": share("Block"),
            "kl_plain": share("Bits, plain", format="%.2f", help="From the prediction, on text not used in the fit."),
            "kl": share("Bits, fitted", format="%.2f"),
            "top1_plain": share("Final word on top, plain"),
            "top1": share("Final word on top, fitted"),
            "right_rank": share("Rank of the right answer", help="Median over the prompts, fitted lens."),
            "wrong_rank": share("Rank of another prompt’s", help="It must stay low."),
            "own_share": share("Words of this prompt", help="Of the lens's five first words, how "
                               "many are among the fifty that the model finally predicts here."),
            "other_share": share("Words of another", help="… that it predicts for another prompt."),
            "arrives": share("State brings the answer", help="Put into another prompt, the state "
                             "after this block makes it give this prompt's answer: the share of the pairs."),
            "names": share("Fitted lens names it"),
            "names_plain": share("Plain lens names it"),
        },
    )  # fmt: skip


_SHARES = ("top1_plain", "top1", "own_share", "other_share", "arrives", "names", "names_plain")
_COLUMNS = ["layer", "kl_plain", "kl", "top1_plain", "top1", "right_rank", "wrong_rank", "own_share", "other_share",
            "arrives", "names", "names_plain"]  # fmt: skip
