"""Many runs that each differ from a clean one by one change: a triangular batch, for maps of effects and of patches.

A run joins the batch at the block that it changes, with the clean run's stream: before that nothing of it differs.
Positions before the first changed one are the clean run's, whose keys and values are shared (`causal.block`). So a map
over all blocks costs half of its runs, and less where the change comes late in the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from visit.activations.record import Activations
from visit.causal.block import run_block
from visit.exact.decompose import needed
from visit.models.model import Model

BATCH_BYTES = 32 << 20  # of what the runs of one batch hold while a block is computed: more leaves the caches
Write = Callable[[int, str, Tensor], None]  # (run, seam, what stands there `[pos width]`): the change, made in place


def run_bytes(model: Model, first: int, pos: int) -> int:
    """What one run holds while a block is computed: its neurons, its stream and queries, its pattern."""
    count = pos + 1 - first
    numbers = 3 * model.d_mlp + 6 * model.d_model + 3 * model.n_heads * (pos + 1)
    return count * numbers * torch.empty(0, dtype=model.wide).element_size()


def joined_states(
    model: Model, acts: Activations, layers: Sequence[int], first: int, pos: int, write: Write
) -> Float[Tensor, "run d_model"]:
    """The last state at `pos` of an unchanged run, and behind it that of every changed one, in their order.

    `layers`: the block that each run changes, ascending; `first`: the first position that any of them changes.
    `write(n, seam, value)` makes the change of run n: at "resid_pre", and at the seams of `run_block`.
    A record in half precision is rounded at every block: then the unchanged run is computed from the embedding on, so
    that changed runs differ from it by their change alone. Source: causes section 12.
    """
    start = layers[0] if model.dtype == model.wide else 0
    x = torch.empty(1 + len(layers), pos + 1 - first, model.d_model, dtype=model.wide, device=model.device)
    x[0] = needed(acts, "resid_pre")[start, first : pos + 1].to(model.wide)
    here = 1
    for layer in range(start, model.n_layers):
        new = range(here, here + sum(own == layer for own in layers))
        here = new.stop
        x[new.start : here] = x[0]
        for n in new:
            write(n - 1, "resid_pre", x[n])

        def changed(seam: str, value: Tensor, new: range = new) -> Tensor:
            for n in new:
                write(n - 1, seam, value[n])
            return value

        x[:here] = run_block(model, acts, layer, x[:here], first, changed)
    return x[:, -1]
