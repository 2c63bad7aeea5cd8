"""What every analysis of heads begins with: its position, head and word, or a sentence that says what is wrong."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from visit.activations.forward import Activations
from visit.errors import VisitError
from visit.exact.decompose import Attribution, attribution, needed
from visit.models.model import Model


def aimed(
    model: Model, acts: Activations, pos: int, target: int | str | None, distractor: int | str | None = None
) -> tuple[int, int, Attribution]:
    """Position, target id (None: the model's prediction there) and the attribution that points at it."""
    t = acts.index(pos)
    wanted = int(needed(acts, "logits")[t].argmax()) if target is None else model.token_id(target)
    other = None if distractor is None else model.token_id(distractor, "distractor")
    if other == wanted:
        raise VisitError(f"Target and distractor must differ; both are {model.vocabulary[wanted]!r}.")
    with torch.no_grad():
        return t, wanted, attribution(model, acts, t, wanted, other)


def check_head(model: Model, layer: int, head: int) -> None:
    """A `VisitError` that names the range, unless the model has this head."""
    for what, number, total in (("Layers", layer, model.n_layers), ("Heads", head, model.n_heads)):
        if not 0 <= number < total:
            raise VisitError(f"{what} of {model.name} run from 0 to {total - 1}; {number} came.")


def kv_head(model: Model, head: int) -> int:
    """The key/value head that a head reads."""
    return head // (model.n_heads // model.n_kv_heads)


def seen(acts: Activations, t: int, sources: Iterable[int] | None) -> list[int]:
    """The chosen positions in order, all that position `t` can see without a choice."""
    if sources is None:
        return list(range(t + 1))
    chosen = sorted({acts.index(i) for i in sources})
    if chosen and chosen[-1] > t:
        raise VisitError(f"At position {t} a head sees positions 0 to {t}; {chosen[-1]} came.")
    return chosen


def counted(model: Model, k: int, most: bool = False) -> int:
    """`k` words, at least one; `most`: not more than there are, where a share of k is to mean something."""
    if k < 1 or (most and k > model.d_vocab):
        raise VisitError(f"k must be {f'from 1 to {model.d_vocab}' if most else 'at least 1'}; {k} came.")
    return min(k, model.d_vocab)


def word(model: Model, token: int | str | None) -> dict[str, Any] | None:
    """A token as tables and files name it: `{"id", "token"}`."""
    if token is None:
        return None
    number = model.token_id(token)
    return {"id": number, "token": model.vocabulary[number]}
