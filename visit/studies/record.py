"""A finished study as a record: tables, verdicts, and what they are of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

TABLE_COLUMNS = ("figure", "series", "group", "measure", "layer", "head", "rank", "mean", "low", "high", "prompts")
BAND = (2.5, 97.5)  # percentiles of the resampled means


@dataclass(frozen=True)
class Verdict:
    """One finding of the paper, looked for in this run. `holds`: None = undecided.

    `sentence`: the claim, the answer and its size; `numbers`: what it rests on (estimate, interval, rule), maybe empty.
    """

    claim: str
    holds: bool | None
    sentence: str
    numbers: str = ""

    @property
    def whole(self) -> str:
        """Sentence and numbers as one text."""
        return f"{self.sentence} ({self.numbers})" if self.numbers else self.sentence


@dataclass(frozen=True, eq=False)
class Study:
    """What a study found: figure id → table (columns: `visit.studies`), figure id → verdicts, and what they are of."""

    tables: dict[str, pd.DataFrame]
    verdicts: dict[str, list[Verdict]]
    meta: dict[str, Any]
