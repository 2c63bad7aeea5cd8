"""Maps of cells that are clicked and walked with the arrow keys: what a page draws, says and lists of them. No torch.

A cell has a hue and a strength between 0 and 1, which become a class ("p14": for the target, 70 %), and classes become
colours per theme here. Each fill takes the word, black or white, that can be read better on it: at least 4.5 : 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import Any

import pandas as pd

from visit.drawing.style import page_colours
from visit.text.numbers import signed
from visit.text.visible import fit, text_width

# hues: p for the target (or: much), n against it, a the pattern, d what differs
SHADES = 20  # of a hue, from almost the page to the full colour
_FULL_HUES = {
    "light": {"p": "#0b7a75", "n": "#c24a08", "a": "#c8901e", "d": "#6a4fb3"},
    "dark": {"p": "#35a98c", "n": "#e07b3e", "a": "#d9a534", "d": "#9a86e0"},
}
_PALEST = 0.04  # of the full colour


@dataclass(frozen=True, eq=False)
class Grid:
    """A map as cells.

    cells: a row each, with `row` and `column` (numbers, from 0), `strength` (0 to 1), `hue`, `text` (a word or number
    in the cell), `id` (what a click gives), the columns of `said`, and `framed` and `marked` where some cells are.
    rows: their names, downwards. columns: their names, of two lines where they hold a line break. said: columns of
    `cells` with their titles, the first one first: the hint of a cell, what is spoken of it, and the table.
    row, column: the line looked at. square: cells without words, as wide as high.
    scale: what fills mean, as (hue and step, words). mark: what a marked cell is.
    """

    label: str
    cells: pd.DataFrame
    rows: list[str]
    columns: list[str]
    said: dict[str, str]
    corner: str = ""
    row: int | None = None
    column: int | None = None
    square: bool = False
    scale: tuple[tuple[str, str], ...] = ()
    mark: str = ""
    of: Any = field(default=None)  # what it is a map of: the arrow keys' place is kept while it stays


def for_and_against(top: float, change: bool) -> tuple[tuple[str, str], ...]:
    """What the two full colours of a map mean, of which `top` is the largest number. `change`: of the answer without a
    part, which speaks for the target where the answer falls."""
    ends = ((-1, " against the target"), (0, ""), (1, " for the target"))
    return tuple(
        (
            f"{'n' if end < 0 else 'p'}{SHADES * abs(end)}",
            f"{signed((-end if change else end) * top) if end else 0}{words}",
        )
        for end, words in ends
    )


def grid_data(grid: Grid) -> dict[str, Any]:
    """The grid as `visit/drawing/grid.js` takes it; a place without a cell is None."""
    lines: list[list[dict[str, Any] | None]] = [[None] * len(grid.columns) for _ in grid.rows]
    for cell in grid.cells.to_dict("records"):
        step = round(SHADES * min(1.0, max(0.0, cell["strength"]))) if cell["strength"] == cell["strength"] else 0
        hint = [f"{title}: {cell[name]}" if title else str(cell[name]) for name, title in grid.said.items()]
        lines[int(cell["row"])][int(cell["column"])] = {
            "w": cell["text"], "c": f"{cell['hue']}{step}", "t": "\n".join(hint), "id": cell["id"],
            "f": int(bool(cell.get("framed"))), "m": int(bool(cell.get("marked"))),
        }  # fmt: skip
    return {
        "label": grid.label, "corner": grid.corner, "columns": grid.columns, "row": grid.row, "column": grid.column,
        "square": int(grid.square), "scale": [list(one) for one in grid.scale], "mark": grid.mark,
        "of": repr((grid.of, grid.rows, grid.columns)),
        "rows": [{"name": name, "cells": cells} for name, cells in zip(grid.rows, lines, strict=True)],
    }  # fmt: skip


def grid_table(grid: Grid) -> pd.DataFrame:
    """The same cells as a table, a row each."""
    found = grid.cells.sort_values(["row", "column"], kind="stable")
    return found[list(grid.said)].rename(columns={name: title or name for name, title in grid.said.items()})


def ramp(theme: str, hue: str) -> list[tuple[str, str]]:
    """(fill, word) of every step of a hue in one theme."""
    page, full = page_colours(theme)["page"], _FULL_HUES[theme][hue]
    shares = [_PALEST + (1 - _PALEST) * n / SHADES for n in range(SHADES + 1)]
    fills = [_blend(full, page, share) for share in shares]
    return [(fill, "#000000" if _luminance(fill) > _BOTH_READ else "#ffffff") for fill in fills]


_BOTH_READ = 0.179  # luminance at which black and white words have the same contrast, 4.58 : 1


def _blend(front: str, back: str, share: float) -> str:
    both = ((int(front[i : i + 2], 16), int(back[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(share * f + (1 - share) * b):02x}" for f, b in both)


def _luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def grid_style(theme: str, scope: str) -> str:
    """CSS of every class under `scope`: `--f` the fill, `--w` the word."""
    return "".join(
        f"{scope} .{hue}{n}{{--f:{fill};--w:{word}}}"
        for hue in _FULL_HUES[theme] for n, (fill, word) in enumerate(ramp(theme, hue))
    )  # fmt: skip


def grid_svg(grid: Grid, words: float = 1.0, theme: str = "light") -> str:
    """The grid as an SVG file of its own, in plain attributes: for a paper, a slide, or an editor of drawings.

    `words`: how many times larger they are, against cells without one.
    """
    px = _CELL_PX * words
    page = page_colours(theme)
    longest = max((text_width(str(text), px) for text in grid.cells["text"]), default=0.0)
    lines = [name.split("\n") for name in grid.columns]
    two = max(map(len, lines), default=1) > 1
    named = max(text_width(line, px) for both in lines for line in both) + 8 if two else 0.0
    wide, high = (
        (24.0, max(20.0, 15.0 * words))
        if grid.square
        else (max(44.0, longest + 10, min(88.0 * words, named)), 22.0 * words)
    )
    side = max(text_width(name, px) for name in [*grid.rows, grid.corner]) + 14
    names = [[fit(line, 88 * words if grid.square else wide, px) for line in both] for both in lines]
    top = max(text_width(both[0], px) for both in names) + 8 if grid.square else (36.0 if two else 22.0) * words
    key, key_width = _scale_key(grid, side, top + high * len(grid.rows) + 8, theme, px)
    right, below = side + wide * len(names) + 6, top + high * len(grid.rows) + (34 if key else 6)
    right = max(right, side + key_width)
    parts = [f'<rect width="100%" height="100%" fill="{page["page"]}"/>']
    parts.append(_cell_text(side - 8, top - 7, grid.corner, page["quiet"], "end", px))
    for n, both in enumerate(names):
        x, bold, name = side + wide * (n + 0.5), n == grid.column, both[0]
        if grid.square:
            turned = f' transform="rotate(-90 {x + 4:g} {top - 6:g})"'
            parts.append(_cell_text(x + 4, top - 6, name, page["ink"], "start", px, bold, turned))
        else:
            first = top - 6 - 14 * words * two
            parts += [
                _cell_text(x, first + 14 * words * m, line, page["ink"], "middle", px, bold)
                for m, line in enumerate(both)
            ]
    for n, name in enumerate(grid.rows):
        parts.append(_cell_text(side - 8, top + high * (n + 0.5) + 4, name, page["ink"], "end", px, n == grid.row))
    for cell in grid.cells.to_dict("records"):
        x, y = side + wide * int(cell["column"]), top + high * int(cell["row"])
        parts += _cell_box(cell, x, y, wide, high, theme, px)
    parts += key
    size = f'width="{right:g}" height="{below:g}" viewBox="0 0 {right:g} {below:g}"'
    font = 'font-family="Helvetica, Arial, sans-serif"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>{"".join(parts)}</svg>'


_CELL_PX = 12.0  # of the words in a grid that stands alone


def _scale_key(grid: Grid, x: float, y: float, theme: str, px: float) -> tuple[list[str], float]:
    """What fills and marks mean, in a row, and how wide it is."""
    found, start = [], x
    for step, words in grid.scale:
        fill, ink = ramp(theme, step[0])[int(step[1:])]
        wide = max(44.0, text_width(words, px) + 16)
        found += [f'<rect x="{x:g}" y="{y:g}" width="{wide:g}" height="20" fill="{fill}"/>',
                  _cell_text(x + wide / 2, y + 14, words, ink, "middle", px)]  # fmt: skip
        x += wide
    if grid.mark:
        ink = page_colours(theme)["ink"]
        found += [f'<circle cx="{x + 18:g}" cy="{y + 10:g}" r="2.5" fill="{ink}"/>',
                  _cell_text(x + 26, y + 14, grid.mark, ink, "start", px)]  # fmt: skip
        x += 32 + text_width(grid.mark, px)
    return found, x - start


def _cell_box(cell: dict[Any, Any], x: float, y: float, wide: float, high: float, theme: str, px: float) -> list[str]:
    """A cell's box and its word; a cell without a strength is as pale as one of none."""
    strength = cell["strength"] if cell["strength"] == cell["strength"] else 0.0
    fill, word = ramp(theme, cell["hue"])[round(SHADES * min(1.0, max(0.0, strength)))]
    edge = f' stroke="{page_colours(theme)["ink"]}" stroke-width="2"' if cell.get("framed") else ""
    place = f'x="{x + 1:g}" y="{y + 1:g}" width="{wide - 2:g}" height="{high - 2:g}"'
    box = f'<rect {place} rx="3" fill="{fill}"{edge}/>'
    words = [_cell_text(x + wide / 2, y + high / 2 + 4, str(cell["text"]), word, "middle", px)] if cell["text"] else []
    dot = [f'<circle cx="{x + wide - 6:g}" cy="{y + 6:g}" r="2.5" fill="{word}"/>'] if cell.get("marked") else []
    return [box, *words, *dot]


def _cell_text(
    x: float, y: float, words: str, colour: str, anchor: str, px: float, bold: bool = False, more: str = ""
) -> str:  # fmt: skip
    weight = ' font-weight="700"' if bold else ""
    return (
        f'<text x="{x:g}" y="{y:g}" fill="{colour}" font-size="{px:g}" text-anchor="{anchor}"{weight}{more}>'
        f"{escape(words)}</text>"
    )
