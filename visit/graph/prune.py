"""How much of each sum is shown. What is not shown goes into a `rest` node, so that nothing is lost."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from visit.errors import VisitError
from visit.text.node_id import EDITED, TERMS, NodeId

if TYPE_CHECKING:  # what is kept is said without torch
    from torch import Tensor

    from visit.models.model import Model

Count = int | float | tuple[int, int] | None


@dataclass(frozen=True)
class Keep:
    """How much of each sum a flow graph shows (method section 5, paper section 3.2).

    Each count: an int; a float in (0, 1] = the fewest terms whose share reaches it; a pair (positive, negative), where
    the sign is that of what they are kept by, else the coefficient's for neurons, the contribution's for others; None =
    all.
    `by`: "norm" (heads ‖z W_O‖, memory values pattern·‖v W_O‖, neurons |coefficient|·‖row‖),
    "contribution" (|logits|), "influence" (|logits| to first order, through all that follows; one more run forward
    and backward), or "pattern" (memory values by attention, the rest by norm).
    `pin`: ids of nodes shown in any case; with a leading `-` a node that is never shown.
    """

    heads: Count = None
    values: Count = 2
    attn_neurons: Count = 12
    mlp_neurons: Count = 12
    by: Literal["norm", "contribution", "influence", "pattern"] = "norm"
    pin: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "pin", (self.pin,) if isinstance(self.pin, str) else tuple(self.pin))
        if self.by not in ("norm", "contribution", "influence", "pattern"):
            raise VisitError(f"Keep.by must be 'norm', 'contribution', 'influence' or 'pattern'; got {self.by!r}.")
        for name in ("heads", "values", "attn_neurons", "mlp_neurons"):
            if not _is_count(getattr(self, name)):
                raise VisitError(
                    f"Keep.{name} must be a whole number, a share in (0, 1], a pair (positive, negative) of whole "
                    f"numbers, or None for all; got {getattr(self, name)!r}."
                )


def _is_count(count: object) -> bool:
    if isinstance(count, bool):
        return False
    if isinstance(count, int):
        return count >= 0
    if isinstance(count, float):
        return 0 < count <= 1
    if isinstance(count, (tuple, list)):
        return len(count) == 2 and all(isinstance(c, int) and not isinstance(c, bool) and c >= 0 for c in count)
    return count is None


def chosen_terms(
    size: Tensor, sign: Tensor, count: Count, pinned: Collection[int] = (), hidden: Collection[int] = ()
) -> list[int]:
    """The terms of one sum to show, largest first. `size ≥ 0` and `sign`: `[n]`."""
    import torch

    order = torch.argsort(size, descending=True, stable=True)
    if isinstance(count, (tuple, list)):
        signs = sign[order]
        chosen = order[
            ((signs > 0) & ((signs > 0).cumsum(0) <= count[0])) | ((signs < 0) & ((signs < 0).cumsum(0) <= count[1]))
        ]
    elif isinstance(count, float):
        reached = size[order].cumsum(0) / size.sum().clamp_min(torch.finfo(size.dtype).tiny)
        chosen = order[: int((reached < count - 1e-9).sum()) + 1] if float(size.sum()) > 0 else order[:0]
    else:
        chosen = order if count is None else order[:count]
    keep = {*chosen.tolist(), *pinned} - set(hidden)
    return [i for i in order.tolist() if i in keep]


def share(size: Tensor, chosen: list[int]) -> float:
    """Σ shown / Σ all of the measure over one sum; 1 for a sum of zeros."""
    total = float(size.sum())
    return float(size[chosen].sum()) / total if total > 0 else 1.0


def at_most(count: Count, total: int) -> int:
    """The largest number of terms that a count can show of `total`."""
    if isinstance(count, (tuple, list)):
        return min(sum(count), total)
    return min(count, total) if isinstance(count, int) else total


def is_pin(model: Model, pin: str, layers: Collection[int], pos: int) -> bool:
    """Whether `pin` (with or without its `-`) can be kept: a head, memory value or neuron of the shown layers.

    States, norms, sums, biases and rests stand in every graph and may be named without effect.
    """
    from visit.models.attention import first_visible

    node = NodeId.parse(pin.removeprefix("-"))
    if node is not None and node.kind in EDITED:
        return False
    if node is None or node.only_b or node.kind not in TERMS:
        return node is not None and not node.only_b and not pin.startswith("-")
    if node.layer is None or node.layer not in layers:
        return False
    if node.source_pos is not None and not first_visible(model, node.layer, pos) <= node.source_pos <= pos:
        return False
    if node.head is not None:
        return node.head < model.n_heads
    return node.neuron < (model.n_heads * model.d_head if node.kind == "attn_neuron" else model.d_mlp)  # type: ignore[operator]
