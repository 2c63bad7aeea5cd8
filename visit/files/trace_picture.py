"""The maps of a causal trace as a file."""

from __future__ import annotations

import pandas as pd

from visit.figures.tracing import STEP_X, trace_chart, trace_lines
from visit.files.chart_file import chart_file
from visit.files.figure_file import lines_within
from visit.models.catalog import title
from visit.text.visible import visible

MOST_BESIDE = 1.5  # times larger, up to which three maps have room beside each other
LEAST_PX, TITLE_PX, LINE_PX = 300, 16, 13  # of a map's width; of the words above the maps


def trace_file(table: pd.DataFrame, kind: str, words: float = 1.0) -> bytes:
    """The three maps of a table of `visit.trace` as the content of a file. `kind`: "svg", "png" or "html".

    `words`: so many times larger than on the page; from 1.5 the maps stand below each other, and lines break.
    Raises `VisitError` where a library that draws is missing.
    """
    lines = trace_lines(table, visible(title(table.attrs["model"])))
    about = {name: value for name, value in table.attrs.items() if name != "ledger"}
    stacked, said = words > MOST_BESIDE, lines
    if stacked:
        words = max(1.0, words / MOST_BESIDE)  # what is a third as wide has larger words in print
        room = max(LEAST_PX, (table["pos"].nunique() + 2) * STEP_X)
        said = [part for line in lines[1:] for part in lines_within(line, room, LINE_PX * words)]
        said.insert(0, "\n".join(lines_within(lines[0], room, TITLE_PX * words)))
    return chart_file(
        trace_chart(table, said, stacked), kind, " ".join(lines[:2]), f"Causal trace: {lines[0]}", about, words
    )
