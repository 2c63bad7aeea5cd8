"""Every figure of a page, gathered while the page is drawn, for whoever asks for files of it (`visit.app.page_files`).

While *Figures* or *Notebook* is open, whatever draws a figure puts it on the list (`collect_figure`): its name, what it
shows, how its drawing is made, and its table. No file is made before it is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import streamlit as st

from visit.app.sessions import FILE_DIALOGS, session

if TYPE_CHECKING:
    import pandas as pd

    from visit.models.model import Model
    from visit.runs.prompts import PromptSet


@dataclass(frozen=True)
class PageFigure:
    """`name`: of its files; `shows`: its caption; `svg`: makes the drawing, with words so many times larger than on the
    page; `table`: makes its numbers.

    A table that has no drawing has `svg` None. `about`: what it is of, where that is not the page's prompt. `code`: the
    name in the page's code (`visit.app.recipes`) of what it shows.
    """

    name: str
    shows: str
    svg: Callable[[float], str] | None
    table: Callable[[], pd.DataFrame] | None = None
    about: dict[str, Any] | None = None
    code: str = ""


def collect_figure(
    shows: str, svg: Callable[[float], str] | None, table: Callable[[], pd.DataFrame] | None = None,
    about: dict[str, Any] | None = None, code: str = "",
) -> None:  # fmt: skip
    """Put a figure on the list of this run of the page, where somebody asks for files.

    `about`: what it is of (of a set: `about_set`, or its table's `attrs`); None: the page's prompt.
    """
    if session().dialog in FILE_DIALOGS:
        name = re.sub(r"[^a-z0-9]+", "-", shows.lower()).strip("-")[:48].rstrip("-") or "figure"
        session().figures.append(PageFigure(name, shows, svg, table, about, code))


def about_set(model: Model, prompts: PromptSet, count: int) -> dict[str, Any]:
    """What a figure over a set is of, as files of sets say it. `count`: prompts that were run."""
    from visit.models.provenance import provenance

    return {**provenance(model), "prompt_set": {"name": prompts.name, "hash": prompts.hash}, "prompts": count}


def collect_chart(
    chart: Any, shows: str, about: dict[str, Any] | None = None, numbers: Callable[[], pd.DataFrame] | None = None,
    code: str = "",
) -> None:  # fmt: skip
    """Put an Altair chart, or the specification of one, on the list. `numbers`: its table; None: what it draws."""

    def svg(words: float) -> str:
        from visit.figures.svg import chart_svg
        from visit.files.chart_file import chart_alone

        return chart_alone(chart_svg(chart, shows, words))

    def table() -> pd.DataFrame:
        from visit.figures.svg import chart_table

        return chart_table(chart)

    collect_figure(shows, svg, numbers or table, about, code)


def altair_figure(
    chart: Any, alt: str, about: dict[str, Any] | None = None, code: str = "",
    numbers: Callable[[], pd.DataFrame] | None = None, **named: Any,
) -> Any:  # fmt: skip
    """Draw an Altair chart on the page, and put it on the list. `alt`: what it shows, in words."""
    collect_chart(chart, alt, about, numbers, code)
    return st.altair_chart(chart, alt=alt, **named)
