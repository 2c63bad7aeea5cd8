"""What an analysis is asked: a position, a target and a distractor of a pass, resolved once and checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from visit.activations.record import Activations, check_pass
from visit.errors import VisitError, check_range
from visit.exact.decompose import Attribution, attribution, needed
from visit.models.model import Model
from visit.models.provenance import provenance


@dataclass(frozen=True, eq=False)
class Question:
    """One pass, a position in it (from 0), the token whose fate is followed, and the token it is compared with."""

    model: Model
    acts: Activations
    pos: int
    target: int
    distractor: int | None = None

    @cached_property
    def attribution(self) -> Attribution:
        """What turns vectors of this position into logits of the target (minus the distractor's, or the mean)."""
        with torch.no_grad():
            return attribution(self.model, self.acts, self.pos, self.target, self.distractor)

    @property
    def word(self) -> Tensor:
        """`[d_model]`: U_target − mean_u U_u (or − U_distractor), what the output of the final norm is measured by."""
        model = self.model
        return model.W_U(self.target) - (model.W_U_mean if self.distractor is None else model.W_U(self.distractor))

    @property
    def meta(self) -> dict[str, Any]:
        """What an answer is of: the model that made it, what was run, position, target and distractor."""
        target, distractor = (
            None if token is None else {"id": token, "token": self.model.vocabulary[token]}
            for token in (self.target, self.distractor)
        )
        return {
            **provenance(self.model, "family", "d_vocab"), **self.acts.provenance,
            "position": self.pos, "target": target, "distractor": distractor,
        }  # fmt: skip


def ask(
    model: Model, acts: Activations, pos: int = -1, target: int | str | None = None, distractor: int | str | None = None
) -> Question:
    """A question with its words as token ids; `target` None: the model's prediction at `pos`.

    Raises `VisitError` for a position that is not there, a word that is not one token, and two equal words.
    """
    check_pass(model, acts)
    t = acts.index(pos)
    if acts.z is not None and (len(acts.z), *acts.z.shape[2:]) != (model.n_layers, model.n_heads, model.d_head):
        layers, _, heads, width = acts.z.shape
        raise VisitError(
            f"This record is of another model, of {layers} layers with {heads} heads of {width}; {model.name} has "
            f"{model.n_layers} with {model.n_heads} of {model.d_head}. Capture it anew."
        )
    wanted = int(needed(acts, "logits")[t].argmax()) if target is None else model.token_id(target)
    other = None if distractor is None else model.token_id(distractor, "distractor")
    if other == wanted:
        raise VisitError(f"Target and distractor must differ; both are {model.vocabulary[wanted]!r}.")
    return Question(model, acts, t, wanted, other)


def check_layer(model: Model, layer: int | None) -> None:
    """A `VisitError` that names the range, unless the model has this layer."""
    check_range(f"Layers of {model.name}", layer, model.n_layers)


def check_head(model: Model, layer: int, head: int) -> None:
    """A `VisitError` that names the range, unless the model has this head."""
    check_layer(model, layer)
    check_range(f"Heads of {model.name}", head, model.n_heads)


def check_neuron(model: Model, layer: int, neuron: int) -> None:
    """A `VisitError` that names the range, unless the model has this neuron."""
    check_layer(model, layer)
    check_range(f"Neurons of {model.name}", neuron, model.d_mlp)


def kv_head(model: Model, head: int) -> int:
    """The key/value head that a head reads."""
    return head // (model.n_heads // model.n_kv_heads)


def visible_sources(acts: Activations, t: int, sources: Iterable[int] | None) -> list[int]:
    """The chosen positions in order, all that position `t` can see without a choice."""
    if sources is None:
        return list(range(t + 1))
    chosen = sorted({acts.index(i) for i in sources})
    if chosen and chosen[-1] > t:
        raise VisitError(f"At position {t} a head sees positions 0 to {t}; got {chosen[-1]}.")
    return chosen


def counted(model: Model, k: int, most: bool = False) -> int:
    """`k` words, at least one; `most`: not more than there are, where a share of k is to mean something."""
    if k < 1 or (most and k > model.d_vocab):
        raise VisitError(f"k must be {f'from 1 to {model.d_vocab}' if most else 'at least 1'}; got {k}.")
    return min(k, model.d_vocab)
