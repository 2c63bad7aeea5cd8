"""The lens map of one prompt as a file: a drawing, a picture, or a page that opens offline and follows its reader's
light or dark system."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd
from markupsafe import Markup

from visit.drawing.style import page_colours
from visit.figures.lens_map import reading_map
from visit.figures.svg import chart_svg
from visit.files.page import fill_template
from visit.files.png import png
from visit.models.catalog import portable, title
from visit.text.visible import as_word, visible

MARGIN = 14  # px around a drawing that stands alone
_BOX = re.compile(r'<svg [^>]*viewBox="0 0 (\S+) (\S+)"[^>]*>')


def lens_map_file(table: pd.DataFrame, meta: dict[str, Any], kind: str, readable_from: int = 0) -> bytes:
    """The map as the content of a file. `kind`: "svg", "png" or "html".

    `table`: `overview.lens_map`; `meta`: what it is of (`model`, `prompt`, `target`, `lens`); `readable_from`: of a
    fitted lens, the first block from which on it says more than habit. Raises `VisitError` where a library that draws
    is missing.
    """
    lines = about(meta, readable_from)
    drawn = chart_svg(reading_map(table, lines, readable_from), lines[0])
    if kind == "html":
        known = [(name, str(value)) for name, value in portable(meta).items() if value is not None and name != "tokens"]
        return fill_template(
            "lens_map.html", title=lines[0], svg=Markup(drawn), about=known, light=page_colours("light"),
            dark=page_colours("dark"),
        ).encode()  # fmt: skip
    alone = _alone(drawn)
    return png(alone) if kind == "png" else alone.encode()


def about(meta: dict[str, Any], readable_from: int = 0) -> list[str]:
    """What a map shows, line by line: the prompt, how it is read, and what fill and grey mean."""
    lens = meta["lens"]
    how = "through the plain lens" if lens == "plain" else f"through a lens {lens['name']}"
    target = as_word(meta["target"]["token"])
    grey = "Grey: under 5 %"
    if readable_from:
        grey += f", and blocks before {readable_from}, which show mostly what any text leads to expect"
    return [
        f"{visible(meta['prompt'])}", f"The top word of every state in {visible(title(meta['model']))}, read {how}",
        f"Fill: probability of {target}. {grey}.",
    ]  # fmt: skip


def _alone(svg: str) -> str:
    """With the light page's colours and a margin: a file of its own has no page around it."""
    page = page_colours("light")
    box = _BOX.search(svg)
    assert box is not None
    wide, high = (float(length) + 2 * MARGIN for length in box.groups())
    body = svg[box.end() :].replace("currentColor", page["ink"])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide:g}" height="{high:g}" viewBox="{-MARGIN} {-MARGIN} '
        f'{wide:g} {high:g}"><rect x="{-MARGIN}" y="{-MARGIN}" width="100%" height="100%" fill="{page["page"]}"/>{body}'
    )
