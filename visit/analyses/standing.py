"""What two passes make of each other's words: probability, rank and logit of every target and distractor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from visit.activations.forward import Activations
from visit.errors import VisitError
from visit.exact.decompose import needed
from visit.models.model import Model


@dataclass(frozen=True, eq=False)
class Asked:
    """One side's pass, and what it is asked about."""

    model: Model
    acts: Activations
    pos: int
    target: int
    distractor: int | None = None


def answers(a: Asked, b: Asked) -> pd.DataFrame:
    """What both sides make of both sides' words: a row a word.

    Columns: `word`, `whose` ("target of A, target of B", …), and for either side (`_a`, `_b`) `prob`, `rank`,
    `logit_over_mean` (logits); missing where the side's vocabulary has no such single token.
    """
    whose: dict[str, list[str]] = {}
    for role in ("target", "distractor"):
        for name, side in (("A", a), ("B", b)):
            token = getattr(side, role)
            if token is not None:
                whose.setdefault(side.model.vocabulary[token], []).append(f"{role} of {name}")
    rows = [
        {"word": word, "whose": ", ".join(roles), **_standing(a, word, "a"), **_standing(b, word, "b")}
        for word, roles in whose.items()
    ]
    return pd.DataFrame(rows).astype({"rank_a": "Int64", "rank_b": "Int64"})


def _standing(asked: Asked, word: str, side: str) -> dict[str, Any]:
    """Probability, rank and centred logit of a word at one side's position."""
    ids = {asked.model.vocabulary[i]: i for i in (asked.target, asked.distractor) if i is not None}
    try:
        token = ids[word] if word in ids else asked.model.token_id(word)
    except VisitError:
        return dict.fromkeys((f"prob_{side}", f"rank_{side}", f"logit_over_mean_{side}"))
    logits = needed(asked.acts, "logits")[asked.pos].to(asked.model.wide)
    own = logits[token]
    return {
        f"prob_{side}": float(logits.softmax(-1)[token]),
        f"rank_{side}": 1 + int((logits > own).sum()),
        f"logit_over_mean_{side}": float(own - logits.mean()),
    }
