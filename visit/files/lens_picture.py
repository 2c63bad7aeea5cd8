"""The lens map of one prompt as a file."""

from __future__ import annotations

from typing import Any

import pandas as pd

from visit.figures.lens_map import reading_map
from visit.files.chart_file import chart_file
from visit.models.catalog import title
from visit.text.visible import as_word, visible


def lens_map_file(table: pd.DataFrame, meta: dict[str, Any], kind: str, readable_from: int = 0) -> bytes:
    """The map as the content of a file. `kind`: "svg", "png" or "html".

    `table`: `overview.lens_map`; `meta`: what it is of (`model`, `prompt`, `target`, `lens`); `readable_from`: of a
    fitted lens, the first block from which on it says more than habit. Raises `VisitError` where a library that draws
    is missing.
    """
    lines = about(meta, readable_from)
    return chart_file(reading_map(table, lines, readable_from), kind, lines[0], f"Lens map: {lines[0]}", meta)


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
