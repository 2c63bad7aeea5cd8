"""From where on an effect has a name: what tables, charts, sentences and roles share. No torch."""

from __future__ import annotations

import math
from typing import Any

ATTENDS = 0.2  # of a head's attention at the looked-at position
READS = 10  # a memory value reads a word that stands among its first ten
ADDS = 0.1  # logits
COSTS = 0.3  # logits of the prediction against the repeated word, lost without the head
AS_MUCH, MORE = 0.75, 1.5  # of what a part adds: a removal that loses between these loses what the part adds
MADE_UP = 0.25  # of what a part adds: a removal that loses less is made up for by others
EDGE = 1e-7  # a probability nearer to 0 or 1 is rounding


def changed_by(row: dict[str, Any], before: dict[str, Any]) -> float:
    """What a change did to the answer, in logits: to target − distractor; without a distractor to ln(P / (1 − P)), the
    target against all other words, so that it moves as the probability does."""
    if before["difference"] == before["difference"]:
        return float(row["d_difference"])
    old, new = (min(max(float(numbers["prob"]), EDGE), 1 - EDGE) for numbers in (before, row))
    return math.log(new / (1 - new)) - math.log(old / (1 - old))


def steers(contribution: float, change: float) -> bool:
    """Whether a head's removal changes what its own contribution does not explain: it adds next to nothing, or it adds
    one way and its removal moves the answer the same way, more than twice as far."""
    against_itself = contribution * change > 0 and abs(change) > 2 * abs(contribution)
    return abs(change) > COSTS and (abs(contribution) < ADDS or against_itself)


HALF = 0.5  # of what the noise of a trace took away: from here on a state "brings it back"
