"""Where two runs part: the measures of `divergence.part`, and where its table first lies apart. No torch."""

from __future__ import annotations

import pandas as pd

PARTED = 0.1  # bits of Jensen-Shannon divergence from which two readings count as different

MEASURES = {
    "js": "Jensen–Shannon divergence in bits",
    "apart": "1 − I₅₀ of the top words",
    "cosine": "cosine distance",
    "cosine_centred": "cosine distance, mean and rogue dimensions removed",
}


def first_parting(table: pd.DataFrame, pair: int | None = None, measure: str = "js") -> pd.Series | None:
    """The first cell in reading order (positions, then depths) that lies apart, of one pair or of all; None: none.

    Apart: at least 0.1 bit of divergence; for another measure at least a tenth of its largest value here.
    """
    shown = table if pair is None else table[table["pair"] == pair]
    if shown.empty or shown[measure].isna().all():
        return None
    limit = PARTED if measure == "js" else 0.1 * float(table[measure].max())
    apart = shown[(shown[measure] >= limit) & (shown[measure] > 0)]
    return None if apart.empty else apart.sort_values(["pair", "depth"]).iloc[0]
