"""The map of path patching as a file: a drawing, a picture, or a page that opens offline."""

from __future__ import annotations

from typing import Any

import pandas as pd

from visit.figures.path_patching import paths_chart
from visit.files.chart_file import chart_file
from visit.models.catalog import title
from visit.narrate.paths import path_story, through_words


def path_picture(table: pd.DataFrame, kind: str, receiver: str | None = None) -> bytes:
    """One receiver (None: the first) of `visit.paths` as "svg", "png" or "html", its reading as the description."""
    receiver, attrs = table["receiver"].iloc[0] if receiver is None else receiver, table.attrs
    head = f"What every head sends to the answer {through_words(table, receiver)}"
    about = f"Path patching, {title(attrs['model'])}, {attrs['prompts']:,} prompts; the change of target − distractor"
    told: Any = [head, f"{about} in logits.", "Blue-green speaks for the target; faint: the 95 % band contains 0."]
    return chart_file(paths_chart(table, receiver, told), kind, path_story(table, receiver), head, attrs)
