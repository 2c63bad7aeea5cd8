"""Every figure of a page as files: gathered while the page is drawn, made when they are asked for.

*Figures*, at the top of a page, opens a dialog. While it is open, whatever draws a figure puts it on the list
(`collect_figure`): its name, what it shows, how its drawing is made, and its table. No file is made before it is asked
for.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import streamlit as st

from visit.app.cache import st_model
from visit.app.sessions import FIGURES_DIALOG, close_dialog, session, state
from visit.text.markdown import escaped
from visit.text.visible import visible

if TYPE_CHECKING:
    import pandas as pd

    from visit.models.model import Model
    from visit.runs.prompts import PromptSet


@dataclass(frozen=True)
class PageFigure:
    """`name`: of its files; `shows`: its caption; `svg`: makes the drawing; `table`: makes its numbers.

    `about`: what it is of, where that is not the page's prompt.
    """

    name: str
    shows: str
    svg: Callable[[], str]
    table: Callable[[], pd.DataFrame] | None = None
    about: dict[str, Any] | None = None


def collect_figure(
    shows: str, svg: Callable[[], str], table: Callable[[], pd.DataFrame] | None = None,
    about: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """Put a figure on the list of this run of the page, where somebody asks for files.

    `about`: what it is of (of a set: `about_set`, or its table's `attrs`); None: the page's prompt.
    """
    if session().dialog == FIGURES_DIALOG:
        name = re.sub(r"[^a-z0-9]+", "-", shows.lower()).strip("-")[:48].rstrip("-") or "figure"
        session().figures.append(PageFigure(name, shows, svg, table, about))


def about_set(model: Model, prompts: PromptSet, count: int) -> dict[str, Any]:
    """What a figure over a set is of, as files of sets say it. `count`: prompts that were run."""
    from visit.models.provenance import provenance

    return {**provenance(model), "prompt_set": {"name": prompts.name, "hash": prompts.hash}, "prompts": count}


def collect_chart(
    chart: Any, shows: str, about: dict[str, Any] | None = None, numbers: Callable[[], pd.DataFrame] | None = None
) -> None:
    """Put an Altair chart, or the specification of one, on the list. `numbers`: its table; None: what it draws."""

    def svg() -> str:
        from visit.figures.svg import chart_svg
        from visit.files.chart_file import chart_alone

        return chart_alone(chart_svg(chart, shows))

    def table() -> pd.DataFrame:
        from visit.figures.svg import chart_table

        return chart_table(chart)

    collect_figure(shows, svg, numbers or table, about)


def altair_figure(chart: Any, alt: str, about: dict[str, Any] | None = None, **named: Any) -> Any:
    """Draw an Altair chart on the page, and put it on the list. `alt`: what it shows, in words."""
    collect_chart(chart, alt, about)
    return st.altair_chart(chart, alt=alt, **named)


def figures_dialog() -> None:
    """The dialog, at the end of a run of the page."""
    if session().dialog == FIGURES_DIALOG:
        found, session().figures = session().figures, []
        _figures(found)


@st.dialog("Figures of this page", width="large", icon=":material/image:", on_dismiss=close_dialog)
def _figures(found: list[PageFigure]) -> None:
    from visit.files.figure_file import WIDTHS

    if not found:
        st.caption("No figure is open on this page.")
        return
    left, right = st.columns(2)
    width = left.selectbox("Width in print", list(WIDTHS), key="figure_width")
    scale = right.selectbox(
        "PNG: pixels a unit", (1, 2, 4), index=1, format_func=lambda n: f"{n} ×", key="figure_scale"
    )
    mm = WIDTHS[width]
    files = partial(_figure_files, mm=mm, scale=scale, meta=_page_meta())
    for n, figure in enumerate(found):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(escaped(figure.shows), width="stretch")
            for kind in ("svg", "pdf", "png", *(("csv", "json") if figure.table else ())):
                st.download_button(
                    kind.upper(), partial(_one_file, files, figure, kind), f"visit-{figure.name}.{kind}",
                    on_click="ignore", key=f"figure_{n}_{kind}", type="tertiary",
                )  # fmt: skip
    if mm:
        st.caption(_type_size(found, mm))
    st.download_button("All of them (zip)", partial(_figures_zip, found, files), f"visit-{session().page}-figures.zip",
                       on_click="ignore", key="figure_zip", icon=":material/folder_zip:", type="primary")  # fmt: skip


def _page_meta() -> dict[str, Any]:
    """What the page's figures are of, where they do not say it themselves; on Compare of both prompts."""
    from visit.models.provenance import provenance, versions

    now, page = state(), session().page
    made = {"model": now.model, "versions": versions()} if now.recording else provenance(st_model(now.model))
    found = {**made, "page": page}
    if page not in ("heads", "study"):  # which are of sets alone
        found |= {"prompt": now.prompt, "target": now.target, "distractor": now.distractor}
    if page == "compare":
        two = now.compare
        found |= {"prompt_b": two.prompt_b or now.prompt, "model_b": two.model_b or now.model,
                  "target_b": two.target_b, "distractor_b": two.distractor_b}  # fmt: skip
        if two.model_b and not now.recording:
            found["revision_b"] = st_model(two.model_b).revision
    return {name: value for name, value in found.items() if value not in ("", None)}


def _figure_meta(figure: PageFigure, page: dict[str, Any]) -> dict[str, Any]:
    return page if figure.about is None else {"page": page.get("page"), **figure.about}


def _figure_caption(figure: PageFigure, meta: dict[str, Any]) -> str:
    """What is shown, and of what: a prompt, two of them, or a set."""
    if own := meta.get("prompt_set"):
        count = meta["prompts"]
        how = f", in its place: {_PUT_IN_PLACE.get(meta['how'], meta['how'])}" if "how" in meta else ""
        return f"{figure.shows}. Set “{visible(own['name'])}”, {count:,} prompt{'s' if count != 1 else ''}{how}"
    asked = [_quoted_prompt(meta[name]) for name in ("prompt", "prompt_b") if name in meta]
    if len(asked) < 2:
        return f"{figure.shows}. {asked[0]}" if asked else figure.shows
    models = [f" ({meta[name]})" if meta["model"] != meta["model_b"] else "" for name in ("model", "model_b")]
    return f"{figure.shows}. A: {asked[0]}{models[0]}; B: {asked[1]}{models[1]}"


_PUT_IN_PLACE = {"zero": "nothing", "mean": "its mean over the set", "from": "its value in the partner"}
_CAPTION_CHARACTERS = 400  # of a prompt in a caption; the file's metadata have all of it


def _quoted_prompt(prompt: str) -> str:
    text = visible(prompt)
    return f"“{text}”" if len(text) <= _CAPTION_CHARACTERS else f"“{text[:_CAPTION_CHARACTERS]}…”"


def _figure_files(
    figure: PageFigure, kinds: tuple[str, ...], mm: float | None, scale: int, meta: dict[str, Any]
) -> dict[str, bytes]:  # fmt: skip
    """The files of one figure, by their names."""
    from visit.files.figure_file import FIGURE_KINDS, figure_bytes, figure_svg
    from visit.files.tables import to_csv, to_json

    made: dict[str, bytes] = {}
    meta = _figure_meta(figure, meta)
    drawn = [kind for kind in kinds if kind in FIGURE_KINDS]
    svg = figure_svg(figure.svg(), _figure_caption(figure, meta), meta, mm) if drawn else ""
    for kind in drawn:
        made[f"{figure.name}.{kind}"] = figure_bytes(svg, kind, scale)
    if figure.table is not None and {"csv", "json"} & set(kinds):
        table = figure.table()
        texts = {"csv": to_csv(table), "json": to_json({**meta, "figure": figure.shows}, {"figure": table})}
        made |= {f"{figure.name}.{kind}": texts[kind].encode() for kind in kinds if kind in texts}
    return made


def _one_file(files: Callable[..., dict[str, bytes]], figure: PageFigure, kind: str) -> bytes:
    return files(figure, (kind,))[f"{figure.name}.{kind}"]


def _figures_zip(found: list[PageFigure], files: Callable[..., dict[str, bytes]]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for n, figure in enumerate(found):
            for name, data in files(figure, ("svg", "pdf", "png", "csv", "json")).items():
                archive.writestr(f"{n + 1:02}-{name}", data)
    return content.getvalue()


def _type_size(found: list[PageFigure], mm: float) -> str:
    from visit.files.figure_file import smallest_words

    sizes = {figure.shows: smallest_words(figure.svg(), mm) for figure in found}
    least = min(sizes, key=lambda name: sizes[name])
    size = f"{sizes[least]:.1f} pt"
    return f"At this width the smallest words are {size} high ({escaped(least)}); journals ask for 6 or more."
