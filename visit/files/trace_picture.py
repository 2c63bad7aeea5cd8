"""The maps of a causal trace as a file."""

from __future__ import annotations

import pandas as pd

from visit.figures.tracing import trace_chart, trace_lines
from visit.files.chart_file import chart_file
from visit.models.catalog import title
from visit.text.visible import visible


def trace_file(table: pd.DataFrame, kind: str) -> bytes:
    """The three maps of a table of `visit.trace` as the content of a file. `kind`: "svg", "png" or "html".

    Raises `VisitError` where a library that draws is missing.
    """
    lines = trace_lines(table, visible(title(table.attrs["model"])))
    about = {name: value for name, value in table.attrs.items() if name != "ledger"}
    return chart_file(trace_chart(table, lines), kind, " ".join(lines[:2]), f"Causal trace: {lines[0]}", about)
