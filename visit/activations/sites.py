"""Where each part of a pass lies: which quantity, which of its numbers, how a record and a module's output give them.

A site is a node's name (`visit.text.node_id`) on one model. What is read from another run and what is written into this
one go through the same `Site`, so that an edit with a run's own values cannot change it.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from visit.activations.record import Activations, Site
from visit.errors import VisitError
from visit.models.model import Model
from visit.text.node_id import NodeId

CAN_BE_EDITED = (
    "An edit names a head (L9.head6), its query, a key, memory value or link of it (L9.head6.query, L9.head6.key4, "
    "L9.head6.value4, L9.head6.link4, L9.head6.link4.renormalised), a shared key or value (L9.kv_head2.key4, "
    "L9.kv_head2.value4), a neuron (L9.mlp_value2071, L9.attn_neuron391), a whole sum (L9.attn_out, L9.mlp_out, "
    "L9.block), the stream (L9.resid_pre, L9.resid_post) or the embedding (embed, embed.pos3)"
)
# the parts of a record that hold a quantity; "stream" l is what enters block l, with one more after the last block
RECORDED: dict[str, tuple[str, ...]] = {
    "z": ("z",), "neurons": ("neurons",), "attn_out": ("attn_out",), "mlp_out": ("mlp_out",), "q": ("q",), "k": ("k",),
    "v": ("v",), "pattern": ("pattern",), "stream": ("resid_pre", "resid_post"), "block": ("resid_pre", "resid_post"),
    "embed": ("resid_pre",),
}  # fmt: skip
_QUANTITY = {
    "head": "z", "attn_neuron": "z", "mlp_value": "neurons", "attn_out": "attn_out", "mlp_out": "mlp_out",
    "query": "q", "key": "k", "kv_key": "k", "value": "v", "kv_value": "v", "link": "pattern", "resid_pre": "stream",
    "resid_post": "stream", "block": "block", "embed": "embed",
}  # fmt: skip


def site_of(model: Model, node_id: str) -> Site:
    """The site of a node's name. Raises `VisitError` for a name that cannot be edited, or does not exist here."""
    node = NodeId.parse(node_id) if isinstance(node_id, str) else None
    if node is None or node.kind not in _QUANTITY or node.only_b:
        raise VisitError(f"{CAN_BE_EDITED}; got {node_id!r}.")
    layer = node.layer or 0
    if layer >= model.n_layers:
        raise VisitError(f"{model.name} has layers 0 to {model.n_layers - 1}; got {node_id!r}.")
    quantity, group = _QUANTITY[node.kind], model.n_heads // model.n_kv_heads
    if quantity in ("stream", "block", "embed", "attn_out", "mlp_out"):
        entered = layer + (node.kind == "resid_post")
        return Site(node, quantity, entered if quantity == "stream" else layer, slice(0, model.d_model), model.d_model)
    number, count = (
        (node.head, model.n_heads) if node.head is not None
        else (node.kv_head, model.n_kv_heads) if node.kv_head is not None
        else (node.neuron, model.n_heads * model.d_head if quantity == "z" else model.d_mlp)
    )  # fmt: skip
    if number is None or number >= count:
        raise VisitError(f"{node_id!r} does not exist: the last number there is {count - 1}.")
    heads: tuple[int, ...] = ()
    if node.kind in ("kv_key", "kv_value"):
        heads = tuple(range(number * group, (number + 1) * group))
    elif node.kind in ("key", "value", "link"):
        heads = (number,)
    if node.kind == "link":
        return Site(node, quantity, layer, slice(number, number + 1), 1, heads)
    width = 1 if node.neuron is not None else model.d_head
    at = number // group if node.kind in ("key", "value") else number
    return Site(node, quantity, layer, slice(at * width, (at + 1) * width), width, heads)


def in_record(model: Model, acts: Activations, quantity: str, layer: int) -> Float[Tensor, "pos width"]:
    """A whole quantity of one layer in a record of a whole prompt, heads side by side (not "pattern").

    "block": what a block adds to the stream; "embed": what enters the first block without the position's part.
    Raises `VisitError` for a part that was not captured, or a record of another model.
    """
    acts.index(0, whole=True)
    for name in RECORDED[quantity]:
        part = getattr(acts, name)
        if part is None:
            raise VisitError(f"The edit's source was captured without {name!r}; capture it with all parts.")
        if len(part) != model.n_layers:
            raise VisitError(
                f"The edit's source is of a model of {len(part)} layers; {model.name} has {model.n_layers}."
            )
        if (found := list(part.shape[2:])) != (own := _widths(model, name)):
            raise VisitError(
                f"The edit's source is of another model: a position of its {name!r} is {found} numbers, that of "
                f"{model.name} {own}."
            )
    if quantity == "embed":
        position = position_part(model, acts.resid_pre[0])  # type: ignore[index]
        return acts.resid_pre[0] if position is None else acts.resid_pre[0] - position  # type: ignore[index]
    if quantity == "stream":
        return acts.resid_pre[layer] if layer < model.n_layers else acts.resid_post[-1]  # type: ignore[index]
    if quantity == "block":
        return acts.resid_post[layer] - acts.resid_pre[layer]  # type: ignore[index]
    return getattr(acts, quantity)[layer].flatten(1)


def _widths(model: Model, part: str) -> list[int]:
    """The axes of one position in a part of a record of this model."""
    if part == "neurons":
        return [model.d_mlp]
    heads = {"z": model.n_heads, "q": model.n_heads, "k": model.n_kv_heads, "v": model.n_kv_heads}
    return [heads[part], model.d_head] if part in heads else [model.d_model]


def position_part(model: Model, like: Float[Tensor, "... pos d_model"]) -> Float[Tensor, "pos d_model"] | None:
    """What learned positions add to the embedding, for as many positions as `like` has; None without them."""
    if model.family.pos_embed is None:
        return None
    rows: Any = model.module(model.family.pos_embed).weight
    start = model.family.pos_offset
    return rows[start : start + like.shape[-2]].detach().to(like)
