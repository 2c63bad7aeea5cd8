"""A chart as a file of its own: a drawing, a picture, or a page that opens offline and follows its reader's light or
dark system."""

from __future__ import annotations

import re
from typing import Any

from markupsafe import Markup

from visit.drawing.style import page_colours
from visit.figures.svg import chart_svg
from visit.files.page import fill_template
from visit.files.png import png
from visit.models.catalog import portable

AROUND = 14  # px around a drawing that stands alone
_BOX = re.compile(r'<svg [^>]*viewBox="0 0 (\S+) (\S+)"[^>]*>')


def chart_file(chart: Any, kind: str, label: str, title: str, meta: dict[str, Any], words: float = 1.0) -> bytes:
    """An Altair chart as the content of a file. `kind`: "svg", "png" or "html".

    `label`: the chart in words, for those who cannot see it; `title`: of the page; `meta`: what it is of, listed below
    the chart of a page; `words`: as of `chart_svg`. Raises `VisitError` where a library that draws is missing.
    """
    drawn = chart_svg(chart, label, words)
    if kind == "html":
        known = [(name, str(value)) for name, value in portable(meta).items() if value is not None and name != "tokens"]
        return fill_template(
            "chart.html", title=title, svg=Markup(drawn), about=known, light=page_colours("light"),
            dark=page_colours("dark"),
        ).encode()  # fmt: skip
    alone = chart_alone(drawn)
    return png(alone) if kind == "png" else alone.encode()


def chart_alone(svg: str) -> str:
    """With the light page's colours and a margin: a file of its own has no page around it."""
    page = page_colours("light")
    box = _BOX.search(svg)
    assert box is not None
    wide, high = (float(length) + 2 * AROUND for length in box.groups())
    body = svg[box.end() :].replace("currentColor", page["ink"])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide:g}" height="{high:g}" viewBox="{-AROUND} {-AROUND} '
        f'{wide:g} {high:g}"><rect x="{-AROUND}" y="{-AROUND}" width="100%" height="100%" fill="{page["page"]}"/>{body}'
    )
