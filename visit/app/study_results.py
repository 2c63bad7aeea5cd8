"""What a study has found so far: the figures with their words and verdicts, files of it, and a second study over it."""

from __future__ import annotations

import hashlib
import io
import zipfile
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from visit.app.cache import kept
from visit.app.fields import listed
from visit.app.figure_list import collect_chart
from visit.app.sessions import state
from visit.app.widgets import beside, plain
from visit.cache import Store
from visit.errors import VisitError
from visit.figures.study import panels
from visit.figures.svg import chart_spec
from visit.files import study_report as report
from visit.studies.captions import ANSWERS, caption_of
from visit.studies.settings import ALIGNED, MAX_BYTES, NORM_FIGURES
from visit.text.markdown import escaped
from visit.text.visible import visible

if TYPE_CHECKING:
    from visit.models.model import Model
    from visit.runs.prompts import PromptSet
    from visit.runs.worker import Run
    from visit.studies.record import Study

STUDY_BYTES = 32 << 20  # of finished studies that can be laid over another one
SHOWN_ROWS = 1000  # of a table on the page; the files have all
_WIDE = "<style>[class*='st-key-wide_']{overflow-x:auto;max-width:100%}</style>"  # wide figures scroll by themselves


def show_figures(run: Run, model: Model, prompts: PromptSet, over: tuple[Any, Study | None]) -> None:
    """All figures that are complete. `over`: of `laid_over`."""
    name, other = over
    study = _study(run, model, prompts)
    if study is None:
        return
    if run.alive and not set(study.meta["settings"]["figures"]) <= set(ALIGNED):
        st.caption("The figures of norms and neurons follow; those below are complete.")
    if not run.alive:
        _keep(run.key, study)
        _files(study, other)
    st.html(_WIDE)
    _contents(study)
    if other is not None:
        first, second = report.run_name(study.meta), report.run_name(other.meta)
        st.markdown(f"Solid: **{plain(first)}**. Dashed: **{plain(second)}**, {plain(report.study_label(other.meta))}.")
    for figure in study.tables:
        _figure(study, figure, other, (run.key, study.meta["prompts"], name))
    _elsewhere()


def show_one(run: Run, model: Model, prompts: PromptSet, figure: str) -> None:
    """One figure of the prompts that are done so far."""
    from visit.studies.study import study_of

    sums = run.result
    if sums is None or not sums.prompts:
        st.caption("It comes with the first prompts.")
        return
    study = study_of(model, prompts, sums, figures=[figure])
    if figure not in study.tables:
        st.caption("These prompts cannot give it.")
        return
    st.html(_WIDE)
    _figure(study, figure, None, None)


# ---- the contents and the figures ------------------------------------------------------------------------------------


def _contents(study: Study) -> None:
    """Every figure with its verdicts at a glance, as links down the page."""
    st.markdown(f"**{plain(report.study_summary(study.meta))}**")
    found = [(caption_of(figure), report.marks(study, figure)) for figure in study.tables]
    st.markdown(" \u2003 ".join(_unbroken(f"[{caption.name}](#{caption.anchor}) {marks}") for caption, marks in found))
    st.caption(plain(ANSWERS))
    for figure, why in report.left_out(study.meta):
        st.caption(f"Not shown: {plain(figure)} ({plain(why)}).")


def _unbroken(text: str) -> str:
    return text.strip().replace(" ", "\u00a0")


def _figure(study: Study, figure: str, other: Study | None, drawn: Any) -> None:
    caption, table = caption_of(figure), study.tables[figure]
    st.header(f"{caption.name}. {caption.title}", anchor=caption.anchor)
    over = {} if other is None else {"over": {"label": report.study_label(other.meta), **other.meta}}
    _charts(_drawn(study, figure, other, drawn), figure, {**study.meta, **over})
    if figure.startswith("tables"):
        height: Any = "content" if len(table) <= 12 else 420
        st.dataframe(_spelt(table.head(SHOWN_ROWS)), hide_index=True, placeholder="–", height=height)
    for verdict in study.verdicts.get(figure, ()):
        small = f"  \n:small[:gray[{plain(verdict.numbers)}]]" if verdict.numbers else ""
        st.markdown(f"{report.MARKS[verdict.holds]} **{plain(verdict.sentence)}**{small}")
    texts = [caption.measured, caption.reading, report.scope(study.meta, figure, table)]
    st.caption(plain(" ".join(t for t in texts if t)))
    if caption.paper:
        st.markdown(f"**The paper:** {plain(caption.paper)}")
    if caption.others:
        st.markdown(f"**Others found:** {plain(caption.others)}")
    if caption.different:
        st.markdown(f"**Different here:** {plain(caption.different)}")


Drawn = list[tuple[str, dict[str, Any], bool]]  # title, specification, whether its width is its own


def _drawn(study: Study, figure: str, other: Study | None, name: Any) -> Drawn:
    """The figure's charts, made once for a finished study. `name`: what the charts depend on; None while it changes."""
    return _specs(study, figure, other) if name is None else st_figure(name, figure, study, other)


@kept()
def st_figure(drawn: Any, figure: str, _study: Study, _other: Study | None) -> Drawn:
    return _specs(_study, figure, _other)


def _specs(study: Study, figure: str, other: Study | None) -> Drawn:
    over = report.study_run(other, figure) if other is not None and figure in other.tables else None
    found = panels(report.study_run(study, figure), figure, over)
    return [(panel.title, chart_spec(panel.chart), panel.fixed) for panel in found]


def _charts(found: Drawn, figure: str, about: dict[str, Any]) -> None:
    """Two or three beside each other; those of a width of their own scroll where it is narrow."""
    for title, spec, _ in found:
        collect_chart(
            spec, f"{caption_of(figure).name}: {title or caption_of(figure).title}", about, code="study.verdicts"
        )
    count = 3 if len(found) > 3 and len(found) % 3 == 0 else 2
    for start in range(0, len(found), count):
        row = found[start : start + count]
        if row[0][2]:
            for number, one in enumerate(row):
                _one(st.container(key=f"wide_{figure}_{start}_{number}"), one, "content")
        elif len(found) == 1:
            _one(st.container(), row[0], "stretch")
        else:
            with beside(f"study_{figure}_{start}"):
                for place, one in zip(st.columns(count, gap="large"), row, strict=False):
                    _one(place, one, "stretch")


def _one(place: Any, drawn: tuple[str, dict[str, Any], bool], width: Any) -> None:
    title, spec, _ = drawn
    with place:
        if title:
            st.markdown(f"**{plain(title)}**")
        st.vega_lite_chart(spec=spec, width=width, alt=title or "The figure")


def _spelt(table: pd.DataFrame) -> pd.DataFrame:
    texts = [c for c in table.columns if table[c].map(lambda v: isinstance(v, str)).any()]
    return table.assign(**{c: [visible(v) if isinstance(v, str) else v for v in table[c]] for c in texts})


def _elsewhere() -> None:
    """The pages that show the same analyses word by word and neuron by neuron."""
    st.header("More of the norms and neurons", anchor=False)
    left, right = st.columns(2)
    left.page_link("pages/layernorm.py", label="Layer norm: every word, every layer, and a test of function words",
                   icon=":material/filter_alt:")  # fmt: skip
    right.page_link("pages/neurons.py", label="Neurons: those that are always on, one by one, and a search by word",
                    icon=":material/scatter_plot:")  # fmt: skip


# ---- files -----------------------------------------------------------------------------------------------------------


def _files(study: Study, other: Study | None) -> None:
    with st.container(horizontal=True):
        st.download_button("Report", partial(report.html, study, other), "visit-study.html", on_click="ignore",
                           icon=":material/description:", help="One page with all figures, verdicts and settings; it "
                           "opens offline.")  # fmt: skip
        st.download_button("Tables", partial(_zip, study), "visit-study.zip", on_click="ignore",
                           icon=":material/table:", help="A CSV and a JSON of every figure, and study.json, which can "
                           "be laid over another study.")  # fmt: skip


def _zip(study: Study) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as files:
        for name, content in report.figure_files(study).items():
            files.writestr(name, content)
    return archive.getvalue()


# ---- a second study --------------------------------------------------------------------------------------------------


@st.cache_resource(show_spinner=False)
def _shared() -> Store:
    return Store(STUDY_BYTES)


def _own() -> Store:
    """The finished studies of pasted prompts, which stay with their visitor."""
    return st.session_state.setdefault("visit_studies", Store(STUDY_BYTES))


def _keep(key: Any, study: Study) -> None:
    """Remember a finished study, so that it can be laid over the next one."""
    from visit.files.study_file import without_words

    place = _own() if state().set == "own" else _shared()
    place.put(key, without_words(study))


def laid_over(now: Any) -> tuple[Any, Study | None]:
    """(what names it, the study) that is laid over this one: an earlier run, or a file; None for nothing."""
    found = {_study_name(key): study for key, study in {**_shared().records, **_own().records}.items() if key != now}
    asked = state().studies.over
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.selectbox("Compare with", width=420, format_func=lambda k: _label(found, k),
                              help="A finished study of another model or prompt set: dashed in every figure. "
                              "Verdicts stay those of this one.",
                              **listed("over", ["", *reversed(found)], asked if asked in found else ""))  # fmt: skip
        with st.popover("Or a file", icon=":material/upload:"):
            file = st.file_uploader(f"study.json or figure-….json of an earlier study, {MAX_BYTES >> 20} MB at most",
                                    ["json"], key="study_file", max_upload_size=MAX_BYTES >> 20)  # fmt: skip
    if asked and not chosen:
        st.caption("The study that the link lays over this one is not on this server any more.")
    if file is not None:
        try:
            content = file.getvalue()
            from visit.files.study_file import read_study

            return hashlib.sha256(content).hexdigest(), read_study(content)
        except VisitError as problem:
            st.error(f"{plain(visible(file.name))}: {escaped(str(problem))}", icon=":material/error:")
            return None, None
    return chosen, found.get(chosen)


def _study_name(key: Any) -> str:
    """What an address calls a finished study."""
    return hashlib.sha256(repr(key).encode()).hexdigest()[:12]


def _label(found: dict[str, Study], key: str) -> str:
    return "nothing" if not key else f"{report.run_name(found[key].meta)}, {report.study_label(found[key].meta)}"


# ---- from sums to a study --------------------------------------------------------------------------------------------


def _study(run: Run, model: Model, prompts: PromptSet) -> Study | None:
    """The study of what a run has done; words and neurons only where the run has made them, or they are quickly made.

    A run that was stopped before the rows of the weights were read has no Figures 8 and 9.
    """
    from visit.lenses.weights import is_ready

    sums, alive = run.result, run.alive
    if sums is None or not sums.prompts:
        return None
    whole = sums.words is not None or (not alive and (run.state == "done" or is_ready(model)))
    figures = None if whole else tuple(ALIGNED) if alive else (*ALIGNED, *NORM_FIGURES)
    with st.spinner("Making the tables…"):
        return st_study(run.key, sums.prompts, figures, model, prompts, sums)


@kept()
def st_study(key: Any, done: int, figures: Any, _model: Model, _prompts: PromptSet, _sums: Any) -> Study:
    from visit.studies.study import study_of

    return study_of(_model, _prompts, _sums, figures=figures)
