"""Interventions on one forward pass, written at the seams where the record reads: inputs of W_O and W_out.

An edit lives as long as its `with` block; what it may do is a closed list of words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from visit.errors import VisitError
from visit.models.model import Model

_NODE = re.compile(r"L(\d+)\.(?:head(\d+)|attn_neuron(\d+)|mlp_value(\d+)|(attn_out|mlp_out))")


@dataclass(frozen=True, eq=False)
class Edit:
    """Replace one component, at every position, in one run.

    `node_id`: `L9.head6`, `L9.attn_neuron391`, `L9.mlp_value2071`, `L9.attn_out` or `L9.mlp_out`.
    `how`: "zero"; "mean" = its mean over the positions of `source` (a record; None: of this very run);
    "from" = its values in `source`, position by position (a record of a prompt with as many tokens).
    """

    node_id: str
    how: Literal["zero", "mean", "from"] = "zero"
    source: Any = None


@contextmanager
def edit_hooks(model: Model, edits: Sequence[Edit], ids: Sequence[int]) -> Iterator[None]:
    """Attach the edits for one run. They are attached before the recorder, so that the record shows the edited run."""
    with ExitStack() as stack:
        for edit in edits:
            stack.callback(_attach(model, edit, len(ids)).remove)
        yield


def _attach(model: Model, edit: Edit, length: int) -> Any:
    layer, part, columns = _place(model, edit.node_id)
    source = _source(edit, part, layer, columns, length)

    def changed(x: Tensor) -> Tensor:
        x = x.clone()
        own = x[..., columns]
        if edit.how == "zero":
            x[..., columns] = 0
        elif edit.how == "mean":
            x[..., columns] = (own if source is None else source).mean(-2, keepdim=True)
        elif source is not None:
            x[..., columns] = source
        return x

    paths = {"z": model.family.w_o, "neurons": model.family.w_out}
    if part in paths:
        return model.module(paths[part], layer).register_forward_pre_hook(lambda _m, args: (changed(args[0]),))
    family = model.family  # past the post-norm where there is one: the whole sum as the stream gets it
    path = (family.post_attn or family.w_o) if part == "attn_out" else (family.post_mlp or family.w_out)
    return model.module(path, layer).register_forward_hook(lambda _m, _args, output: changed(output))


def _place(model: Model, node_id: str) -> tuple[int, str, slice]:
    found = _NODE.fullmatch(node_id)
    if not found:
        raise VisitError(
            "An edit names a head (L9.head6), a neuron (L9.mlp_value2071, L9.attn_neuron391) or a whole sum "
            f"(L9.attn_out, L9.mlp_out); got {node_id!r}."
        )
    layer, head, row, neuron, whole = found.groups()
    if int(layer) >= model.n_layers:
        raise VisitError(f"{model.name} has layers 0 to {model.n_layers - 1}; got {node_id!r}.")
    if whole:
        return int(layer), whole, slice(None)
    part, number, count = (
        ("z", head, model.n_heads) if head is not None
        else ("z", row, model.n_heads * model.d_head) if row is not None
        else ("neurons", neuron, model.d_mlp)
    )  # fmt: skip
    if int(number) >= count:
        raise VisitError(f"{node_id!r} does not exist: the last number there is {count - 1}.")
    width = model.d_head if head is not None else 1
    return int(layer), part, slice(int(number) * width, (int(number) + 1) * width)


def _source(edit: Edit, part: str, layer: int, columns: slice, length: int) -> Tensor | None:
    if edit.how not in ("zero", "mean", "from"):
        raise VisitError(f"An edit is 'zero', 'mean' or 'from'; got {edit.how!r}.")
    if edit.source is None:
        if edit.how == "from":
            raise VisitError("An edit 'from' needs a source: the record of the run to take the values from.")
        return None
    values = getattr(edit.source, part)
    if values is None:
        raise VisitError(f"The edit's source was captured without {part!r}; capture it with all parts.")
    values = values[layer].flatten(1)[..., columns]
    if edit.how == "from" and len(values) != length:
        raise VisitError(f"The edit's source has {len(values)} positions, this prompt {length}; they must be equal.")
    return values
