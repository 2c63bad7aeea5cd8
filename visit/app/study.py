"""The page of the paper's studies: what is asked, what it will take, the run, and what it found so far."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import streamlit as st

from visit.app import study_results
from visit.app.cache import kept
from visit.app.fields import choice, field, listed
from visit.app.figure_list import altair_figure
from visit.app.follow import look_again, pressed
from visit.app.marks import named_part
from visit.app.opened import check_live
from visit.app.prompt_bar import show_notes, shown_model
from visit.app.prompt_sets import choose_set, on_model, part_of, start_run, watched
from visit.app.sessions import change, draw_anew, session, state
from visit.app.shared import kept_set, model_shelf
from visit.app.sidebar import show_ledger
from visit.app.state import CONTROLS, value_of
from visit.app.widgets import unfolding
from visit.errors import VisitError
from visit.figures import study as figures
from visit.models.catalog import is_hosted, title
from visit.runs.prompts import PromptSet
from visit.studies.captions import SECOND, caption_of
from visit.studies.settings import ALIGNED, FIGURES, Settings, read_through, settled
from visit.text.glossary import explain
from visit.text.markdown import escaped
from visit.text.numbers import duration, percent

if TYPE_CHECKING:
    import pandas as pd

    from visit.models.model import Model
    from visit.runs.worker import Run

HOSTED_SECONDS = 600.0  # that a study may take on a hosted app, as it is forecast
LOOK_EVERY = 5.0  # seconds between two looks at an opened figure


def page(guide: Callable[[str, int, int, bool], None]) -> None:
    """The whole page below its title. `guide`: is told model, prompts, figures, and whether there is a run."""
    check_live()
    from visit.lenses.linear import fitted_lens
    from visit.studies.study import studied, study_key

    st.caption(
        "One run over a set of prompts makes every figure of the paper, and how early this model knows its answer. "
        "Beside each stands what the paper found for GPT-2 medium."
    )
    show_notes()
    model = shown_model()
    show_ledger(model)
    with named_part("asked"):
        chosen = choose_set(model, filtered=False)
        if chosen is None:
            return
        prompts, settings = _study_controls(model, chosen)
    lens = fitted_lens(model)  # where there is one, Figure 14 and "early" show both
    settings = read_through(settings, lens)
    usable = "studied", model_shelf().edition(model.name), prompts.identity, settings.pos, settings.correct
    prompts = kept_set(usable, partial(studied, model, prompts, settings))
    key = study_key(model, prompts, settings)

    def study(model: Model) -> Any:
        from visit.studies.run import StudyRun

        return StudyRun(model, prompts.rows, settings, lens)

    make = on_model(model, study)

    if session().run_study:
        session().run_study = False
        start_run(key, make)
    place = named_part("run")  # of the bar, or of what the run will take: nothing below it changes its place
    with place:
        start = partial(_before_run, model, chosen, prompts, settings, key, partial(start_run, key, make))
        run = watched(("study", *key[1:]), key, make, follow=len(prompts.rows), start=start)
    guide(title(model.name), len(prompts.rows), len(settings.figures), run is not None)
    if run is None:
        return
    with named_part("found"):
        if run.alive and not _all_in(run, prompts):
            look_again(LOOK_EVERY, _so_far, run, model, prompts, settings)
        else:
            other = study_results.laid_over(run.key) if set(settings.figures) & set(ALIGNED) else (None, None)
            study_results.show_figures(run, model, prompts, other)


def _all_in(run: Run, prompts: PromptSet) -> bool:
    """Whether the result has all prompts; what is told of the progress may be a batch ahead of it."""
    sums = run.result
    return sums is not None and sums.seen == len(prompts.rows)


def _so_far(run: Run, model: Model, prompts: PromptSet, settings: Settings) -> None:
    """While the prompts run nothing is drawn but the figure that is opened: drawing takes as much time as they do."""
    if run.progress.done >= len(prompts.rows) and _all_in(run, prompts):
        draw_anew()
    names = [figure for figure in settings.figures if figure in ALIGNED]
    if not names:
        return
    figure = st.pills("The charts follow when all prompts are done. Look at one so far:", names, key="so_far",
                      format_func=_called)  # fmt: skip
    if figure is not None:
        study_results.show_one(run, model, prompts, figure)


# ---- what is asked ---------------------------------------------------------------------------------------------------


def _study_controls(model: Model, chosen: PromptSet) -> tuple[PromptSet, Settings]:
    """The prompts and settings that the controls say."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        counts = [c for c in CONTROLS["count"].choices if c == "all" or int(c) < len(chosen.rows)]
        count = state().studies.count if state().studies.count in counts else "all"
        st.selectbox("Prompts, evenly spread over the set", width=250, filter_mode=None,
                     format_func=lambda c: f"all {len(chosen.rows):,}" if c == "all" else c,
                     help="The paper takes 100.", **listed("count", counts, count))  # fmt: skip
        st.selectbox("Which of them", width=290, help="Right means that the target is the model's most probable next "
                     "word. The paper takes only such prompts; its Figures 13 and 14 compare.",
                     **choice("correct"))  # fmt: skip
    with unfolding("study-settings", "Figures, k, layers", ":material/tune:"):
        _figure_pills()
        with st.container(horizontal=True, vertical_alignment="bottom"):
            _number_field("k", "Words compared, k", model.d_vocab, "The paper compares the 50 most probable words.")
            st.text_input("Layers", placeholder="all", width=130, help="All, or 3, 3-5, 0,3,7-9: fewer take less time.",
                          **field("blocks"))  # fmt: skip
            _number_field("ranks", "Memory values a head (Figs. 16, 18)", 10_000, "The most attended; empty: all. "
                    + explain("value"), 250)  # fmt: skip
            _number_field("sources", "Sources a head (Figs. 19, 20)", 1_000, "The most attended positions whose keys "
                          "are compared with the query, and with their values.", 220)  # fmt: skip
            st.selectbox("Second measure", width=210, help=SECOND, **choice("second"))
            _number_field(
                "draws", "Bootstrap draws", 10_000, "How often the prompts are drawn anew for the 95 % bands."
            )
            _number_field("seed", "Seed", 999_999, "Of the bootstrap: the same seed gives the same bands.", 110, 0)
    settings = _settings_asked(model)
    st.caption(f"Asked for: {_in_words(settings, model)}.")
    return (chosen if state().studies.count == "all" else part_of(chosen, int(state().studies.count))), settings


def _in_words(settings: Settings, model: Model) -> str:
    """What the folded controls say, so that nobody must open them to know."""
    count = len(settings.figures)
    which = "all figures" if count == len(FIGURES) else f"{count} of {len(FIGURES)} figures"
    some = settings.layers is not None and len(settings.layers) < model.n_layers
    layers = f"layers {', '.join(map(str, settings.layers or ()))}" if some else "all layers"
    second = "words in common and rank-biased overlap" if settings.second == "rbo" else "words in common"
    return f"{which}, k = {settings.k}, {layers}, {second}"


def _figures_asked() -> tuple[str, ...]:
    """The figures of the address; none of them known means all."""
    asked = state().studies.figures.split(",")
    return tuple(f for f in FIGURES if f in asked) or FIGURES


def _figure_pills() -> None:
    key = "w_figures"
    if key not in st.session_state:
        st.session_state[key] = list(_figures_asked())

    def take() -> None:
        found = [f for f in FIGURES if f in st.session_state[key]]
        change(figures="" if len(found) in (0, len(FIGURES)) else ",".join(found))

    st.pills("Figures", FIGURES, selection_mode="multi", key=key, wrap=True, on_change=take, format_func=_called,
             help="Figures 5 and 16 to 20 read keys and values of every head at many positions: they take most of the "
             "time.")  # fmt: skip


def _called(figure: str) -> str:
    return "Tables 1–6" if figure == "tables" else caption_of(figure).name


def _number_field(name: str, label: str, most: int, tip: str, width: int = 140, least: int = 1) -> None:
    """A number of the state; emptied it takes its default again."""
    value = value_of(state(), name)
    shown = None if value is None else min(max(value, least), most)
    st.number_input(label, least, most, width=width, help=tip, placeholder="all", **field(name, shown))


def _settings_asked(model: Model) -> Settings:
    """The settings of the address; layers that do not fit are said, and all are taken."""
    from visit.graph.build import parse_layers

    now = state().studies
    made: Any = {
        "figures": _figures_asked(), "correct": now.correct, "second": now.second, "k": now.k, "draws": now.draws,
        "seed": now.seed, "sources": now.sources, "values": Settings().values if now.ranks is None else now.ranks,
    }  # fmt: skip
    blocks = now.blocks.strip().lower()
    try:
        layers = None if blocks in ("", "all") else tuple(parse_layers(blocks))
        return settled(Settings(**made, layers=layers), model)
    except VisitError as problem:
        st.warning(f"{escaped(str(problem))} All layers are taken instead.", icon=":material/edit:")
        return settled(Settings(**made), model)


# ---- what it will take -----------------------------------------------------------------------------------------------


@kept(spinner="Counting what is to be done…")
def st_study_seconds(key: tuple[Any, ...], _model: Model, _prompts: PromptSet, _settings: Settings) -> Any:
    """What takes how long, and a cheaper run. `key`: of the study, which is of the other arguments."""
    from visit.studies.duration import cheaper, study_forecast

    return study_forecast(_model, _prompts.rows, _settings), cheaper(_model, _prompts.rows, _settings)


def _before_run(
    model: Model, chosen: PromptSet, prompts: PromptSet, settings: Settings, key: tuple[Any, ...],
    run: Callable[[], None],
) -> None:  # fmt: skip
    """How long the run will take on this machine, what takes it, and, where that is long, a cheaper one beside it."""
    table, quick = st_study_seconds(key, model, prompts, settings)
    st.markdown(forecast_sentence(table, len(prompts.rows)))
    seconds = float(table["seconds"].sum())
    if is_hosted() and seconds > HOSTED_SECONDS:
        st.info(f"This app is hosted for many: a run may take {duration(HOSTED_SECONDS)}. Take fewer prompts, figures "
                "or layers, or run VISIT on your own machine.", icon=":material/group:")  # fmt: skip
        if quick is None or quick[2] > HOSTED_SECONDS:
            return
    with st.container(horizontal=True):
        if quick is None:
            if pressed("Run", "run study", ":material/play_arrow:", primary=True):
                run()
        else:
            few, count, takes = quick
            many = f"{len(few.figures)} figure{'s' if len(few.figures) > 1 else ''}"
            st.button(
                f"Quick run: {many}, {count} prompts, about {duration(takes)}", key="quick study", type="primary",
                icon=":material/bolt:", on_click=_take_quick, args=(few, count, len(chosen.rows)),
                help="Figures: " + ", ".join(map(_called, few.figures)) + ". The controls above then say so.",
            )  # fmt: skip
            if is_hosted() and seconds > HOSTED_SECONDS:
                return
            if pressed(f"Run all: about {duration(seconds)}", "run study", ":material/play_arrow:"):
                run()
    if seconds >= 2:
        with unfolding("takes-time", "What takes the time", ":material/timer:") as opened, st.container(width=620):
            if opened:
                altair_figure(figures.forecast_bars(table), width="stretch", alt="What takes how long")


def _take_quick(settings: Settings, count: int, of: int) -> None:
    """Ask for the cheaper run, in the address and in the controls, and start it."""
    st.session_state["w_figures"] = list(settings.figures)
    change(figures=",".join(settings.figures), count=str(count) if count < of else "all")
    session().run_study = True


def forecast_sentence(table: pd.DataFrame, prompts: int) -> str:
    """`About 12 s for 100 prompts on this machine; 91 % of it goes into memory values.`"""
    seconds = float(table["seconds"].sum())
    largest = table.loc[table["seconds"].idxmax()]
    share = float(largest["seconds"]) / max(seconds, 1e-12)
    many = f"{prompts:,} prompt{'s' if prompts != 1 else ''}"
    return (f"**About {duration(seconds)}** for {many} on this machine, if it has nothing else to do; {percent(share)} "
            f"of it goes into {largest['part']}.")  # fmt: skip
