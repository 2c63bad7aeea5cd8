"""A figure as a file for a paper, a slide or an editor: any drawing in SVG, with what it shows and what made it.

The drawing keeps its layout; a width in print scales it, and `smallest_words` says how small its words become. A
caption stands below it, in as many lines as it takes; the model, its revision and type, and how to cite it stand in the
file's metadata.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import escape
from importlib.util import find_spec
from typing import Any

from visit.drawing.style import page_colours
from visit.drawing.svg import visible_tree
from visit.errors import VisitError, check_choice
from visit.figures.aside import drawn_aside
from visit.files.png import png
from visit.models.catalog import portable
from visit.text.citation import bibtex
from visit.text.visible import text_width, visible

WIDTHS = {"as drawn": None, "one column (84 mm)": 84, "two columns (174 mm)": 174, "a slide (254 mm)": 254}  # mm
WORD_SIZES = {"as drawn": None, "5 pt or more": 5.0, "6 pt or more": 6.0, "8 pt or more": 8.0, "10 pt or more": 10.0}
MOST_TIMES = 2.5  # larger than they are drawn: beyond, words are cut to their first letters
FIGURE_KINDS = ("svg", "pdf", "png")
_NEAR_POINTS = 0.05  # points
_GRAPH_CLASS = "class='visit'"
_POINTS = 72 / 96  # of a pixel
_PX_A_MM = 96 / 25.4
_CAPTION_PX = 12.0
_OPEN = re.compile(r"<svg\b[^>]*>")
_SIZE = re.compile(r"\bviewBox=[\"'](\S+) (\S+) (\S+) (\S+)[\"']")
_OUTER_PLACE = re.compile(r"\s(?:x|y|width|height)=(?:\"[^\"]*\"|'[^']*')")
_FONT = re.compile(r"font-size=[\"']([\d.]+)(?:px)?[\"']")


def figure_svg(svg: str, caption: str, meta: dict[str, Any], width_mm: float | None = None) -> str:
    """A drawing as a file of its own: its caption below it, its provenance inside, at a width in print.

    `svg`: one that has a viewBox. `width_mm`: None leaves a unit of the drawing a pixel. Raises `VisitError` for a
    width that is none.
    """
    if width_mm is not None and not 10 <= width_mm <= 2000:
        raise VisitError(f"A figure's width is from 10 to 2,000 mm; got {width_mm:g}.")
    head = _OPEN.search(svg)
    box = _SIZE.search(head[0]) if head else None
    assert head is not None and box is not None
    left, top, wide, high = (float(number) for number in box.groups())
    about = portable(meta)
    made = [str(about[name]) for name in ("model", "revision", "dtype") if about.get(name)]
    made += [f"{name} {number}" for name, number in (about.get("versions") or {}).items()]
    ink = page_colours("light")
    lines = [(line, "ink") for line in lines_within(visible(caption), wide - 12)]
    if _GRAPH_CLASS not in head[0]:  # a graph's legend says what made it
        lines += [(line, "quiet") for line in lines_within(visible(" · ".join(made)), wide - 12)]
    below = 8 + 17 * len(lines)
    texts = "".join(
        f'<text x="{left + 6:g}" y="{top + high + 17 * (n + 1):g}" font-size="{_CAPTION_PX:g}" '
        f'font-family="Helvetica, Arial, sans-serif" fill="{ink[colour]}">'
        f"{escape(line)}</text>"
        for n, (line, colour) in enumerate(lines)
    )
    scale = 1.0 if width_mm is None else width_mm * _PX_A_MM / wide
    placed = f' x="{left:g}" y="{top:g}" width="{wide:g}" height="{high:g}">'
    inner = _OUTER_PLACE.sub("", head[0])[:-1] + placed
    known = escape(json.dumps(visible_tree({**about, "caption": caption, "cite": bibtex()}), default=str))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide * scale:.2f}" height="{(high + below) * scale:.2f}" '
        f'viewBox="{left:g} {top:g} {wide:g} {high + below:g}"><title>{escape(visible(caption))}</title>'
        f'<metadata>{known}</metadata><rect x="{left:g}" y="{top:g}" width="100%" height="100%" fill="{ink["page"]}"/>'
        f"{inner}{svg[head.end() :]}{texts}</svg>"
    )


def lines_within(text: str, room: float, px: float = _CAPTION_PX) -> list[str]:
    """A text as lines of at most `room` pixels, broken at its spaces, and inside a word where one is longer."""
    lines = [""]
    for word in text.split(" "):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if text_width(joined, px) <= room:
            lines[-1] = joined
            continue
        lines += [""] * bool(lines[-1])
        for character in word:
            if lines[-1] and text_width(lines[-1] + character, px) > room:
                lines.append("")
            lines[-1] += character
    return lines


def figure_bytes(svg: str, kind: str, scale: int = 2) -> bytes:
    """A figure's SVG as the content of a file. `kind`: "svg", "pdf" (vector) or "png" with `scale` pixels a unit."""
    check_choice("kind", kind, FIGURE_KINDS)
    if kind == "svg":
        return svg.encode()
    if kind == "png":
        return png(svg, scale)
    if find_spec("vl_convert") is None:
        raise VisitError("PDF files need the package vl-convert-python: pip install vl-convert-python")
    return drawn_aside("vl_convert", "svg_to_pdf", svg=svg)


def smallest_words(svg: str, width_mm: float | None) -> float:
    """The size of the smallest words of a drawing at a width in print, in points. `width_mm`: as of `figure_svg`."""
    box = _SIZE.search(svg)
    assert box is not None
    sizes = [float(found) for found in _FONT.findall(svg)]
    scale = 1.0 if width_mm is None else width_mm * _PX_A_MM / float(box[3])
    return min(sizes, default=_CAPTION_PX) * _POINTS * scale


def drawn_with_words(draw: Callable[[float], str], points: float | None, width_mm: float | None) -> str:
    """A drawing whose smallest words have these points at a width in print, or as many as it can have.

    `draw`: makes it with words that many times larger; most become narrower by that, so it is asked a few times.
    """
    times, svg = 1.0, draw(1.0)
    for _ in range(4):
        size = smallest_words(svg, width_mm)
        if points is None or size > points - _NEAR_POINTS or times == MOST_TIMES:
            break
        times = min(MOST_TIMES, times * points / size)
        svg = draw(times)
    return svg
