"""A drawing as a PNG file."""

from __future__ import annotations

from functools import cache

from visit.drawing.svg import PLAIN_FONT
from visit.errors import VisitError

PNG_SCALE = 2.0


def png(svg: str, scale: float = PNG_SCALE) -> bytes:
    """A drawing as a PNG file with `scale` pixels a unit.

    Raises VisitError where the library that draws it, or every font, is missing.
    """
    if not _has_fonts():
        raise VisitError(
            "PNG files need a font, and this system has none: install one (Liberation Sans), or save as .svg"
        )
    return _rasterise(svg, scale)


def _rasterise(svg: str, scale: float) -> bytes:
    try:
        import resvg_py
    except ImportError as error:
        raise VisitError(
            "PNG files need the package resvg-py: pip install resvg-py, or save as .svg instead"
        ) from error
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=scale))


@cache
def _has_fonts() -> bool:
    """Whether a word leaves a mark: without any font the library draws everything but the words, and says nothing."""
    frame = f"<svg xmlns='http://www.w3.org/2000/svg' width='40' height='20' font-family='{PLAIN_FONT}'>{{}}</svg>"
    return _rasterise(frame.format("<text x='2' y='15'>word</text>"), 1) != _rasterise(frame.format(""), 1)
