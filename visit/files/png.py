"""A drawing as a PNG file."""

from __future__ import annotations

import math
import re
from functools import cache
from importlib.util import find_spec

from visit.drawing.svg import PLAIN_FONT
from visit.errors import VisitError
from visit.figures.aside import drawn_aside

PNG_SCALE = 2.0
MOST_PIXELS = 64_000_000  # of a picture: 0.5 GB while it is drawn; a whole graph at 4 times took six
_HEAD = re.compile(r"<svg\b[^>]*>")
_LENGTH = r"\s{}=[\"']([\d.]+)(?:px)?[\"']"


def png(svg: str, scale: float = PNG_SCALE) -> bytes:
    """A drawing as a PNG file with `scale` pixels a unit, or of a large one as many as make MOST_PIXELS.

    Raises VisitError where the library that draws it, or every font, is missing.
    """
    if not _has_fonts():
        raise VisitError(
            "PNG files need a font, and this system has none: install one (Liberation Sans), or save as .svg"
        )
    return _rasterise(svg, fitting_scale(svg, scale))


def fitting_scale(svg: str, scale: float) -> float:
    """`scale`, or the largest with which the drawing has no more than MOST_PIXELS."""
    head = _HEAD.search(svg)
    sides = [re.search(_LENGTH.format(side), head[0]) for side in ("width", "height")] if head else []
    lengths = [float(found[1]) for found in sides if found]
    if len(lengths) != 2 and head and (box := re.search(r"viewBox=[\"']\S+ \S+ (\S+) (\S+)[\"']", head[0])):
        lengths = [float(length) for length in box.groups()]
    area = math.prod(lengths) if len(lengths) == 2 else 0.0
    return min(scale, math.sqrt(MOST_PIXELS / area)) if area > 0 else scale


def _rasterise(svg: str, scale: float) -> bytes:
    if find_spec("resvg_py") is None:
        raise VisitError("PNG files need the package resvg-py: pip install resvg-py, or save as .svg instead")
    return drawn_aside("resvg_py", "svg_to_bytes", svg_string=svg, zoom=scale)


@cache
def _has_fonts() -> bool:
    """Whether a word leaves a mark: without any font the library draws everything but the words, and says nothing."""
    frame = f"<svg xmlns='http://www.w3.org/2000/svg' width='40' height='20' font-family='{PLAIN_FONT}'>{{}}</svg>"
    return _rasterise(frame.format("<text x='2' y='15'>word</text>"), 1) != _rasterise(frame.format(""), 1)
