"""Lists that come with VISIT: examples, pairs to compare, kinds of sentences."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

import visit


@cache
def data_rows(file: str, mini: bool) -> dict[str, dict[str, str]]:
    """label → row of a list that comes with VISIT: of visit-mini's own world, or of ours for real models."""
    path = Path(visit.__file__).parent / "data" / ("visit-mini" if mini else ".") / file
    with path.open(encoding="utf-8", newline="") as rows:
        return {row["label"]: {k: v or "" for k, v in row.items()} for row in csv.DictReader(rows)}
