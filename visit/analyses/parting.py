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


def first_parting(table: pd.DataFrame, measure: str = "js") -> pd.Series | None:
    """The first cell in reading order (positions, then depths) that lies apart; None: none.

    Apart: at least 0.1 bit of divergence; for another measure at least a tenth of its largest value here.
    """
    if table.empty or table[measure].isna().all():
        return None
    limit = PARTED if measure == "js" else 0.1 * float(table[measure].max())
    apart = table[(table[measure] >= limit) & (table[measure] > 0)]
    return None if apart.empty else apart.sort_values(["pair", "depth"]).iloc[0]
