"""Edits written into a pass, at the seams where the record reads, for as long as a `with` block.

Inputs of W_O and W_out, outputs of what writes into the stream, the stream where a block takes it, queries, keys and
values where they leave their projection or its norm. What one head makes of a key or value that it shares with others,
and of one link, has no seam: its z is made again (`edited_heads`), and the difference is put into the input of W_O and
into the pattern. All of it is attached before the recorder, so that the record shows the edited run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from visit.activations.edited_heads import edited_head
from visit.activations.edits import Applied
from visit.activations.hooks import Recorder
from visit.activations.sites import position_part, projection, stream_reader
from visit.models.attention import rotation_set, table_rotation
from visit.models.model import Model


@contextmanager
def edit_hooks(model: Model, edits: Sequence[Applied], length: int) -> Iterator[None]:
    """Attach edits for one run of `length` positions; they go with the block, also when the pass fails.

    Hold `model.lock` around it, and attach recorders inside.
    """
    with ExitStack() as stack:
        for handle in _attach(model, [e for e in edits if not _by_head(e)]):
            stack.callback(handle.remove)
        by_head = [e for e in edits if _by_head(e)]
        if by_head:
            stack.enter_context(_heads(model, by_head, length))
        for handle in _attach_z(model, edits):  # after the heads were made again: z is what comes of them
            stack.callback(handle.remove)
        yield


def _by_head(edit: Applied) -> bool:
    """Whether the edit has no seam: it holds for some heads of a group, or for some queries, or is a link."""
    return edit.site.per_source and not (edit.site.node.kv_head is not None and edit.positions is None)


def _written(edits: Sequence[Applied], view: Callable[[Tensor, Applied], Tensor]) -> Callable[[Tensor], Tensor]:
    """What a seam's tensor becomes: a copy, in which each edit changes its own numbers, in their order."""

    def changed(x: Tensor) -> Tensor:
        x = x.clone()
        for edit in edits:
            own = view(x, edit)
            own.copy_(edit.edited(own))
        return x

    return changed


def _grouped(edits: Sequence[Applied], *quantities: str) -> dict[tuple[str, int], list[Applied]]:
    found: dict[tuple[str, int], list[Applied]] = {}
    for edit in edits:
        if edit.site.quantity in quantities:
            found.setdefault((edit.site.quantity, edit.site.layer), []).append(edit)
    return found


def _columns(x: Tensor, edit: Applied) -> Tensor:
    return x[..., edit.site.columns]


def _attach(model: Model, edits: Sequence[Applied]) -> Iterator[Any]:
    """Hooks at every seam but the input of W_O."""
    family = model.family
    yield from _attach_stream(model, edits)
    for (_, layer), group in _grouped(edits, "neurons").items():
        yield _before(model.module(family.w_out, layer), _written(group, _columns))
    sums = {"attn_out": family.post_attn or family.w_o, "mlp_out": family.post_mlp or family.w_out}
    for (name, layer), group in _grouped(edits, *sums).items():  # past the post-norm: the sum as the stream gets it
        yield _after(model.module(sums[name], layer), _written(group, _columns))
    for (name, layer), group in _grouped(edits, "q", "k", "v").items():
        seams = [projection(model, name, layer, e.site.columns.start // model.d_head) for e in group]
        views = {id(edit): view for edit, (_, view) in zip(group, seams, strict=True)}
        yield _after(seams[0][0], _written_projection(group, views))


def _written_projection(
    edits: Sequence[Applied], views: dict[int, Callable[[Tensor], Tensor]]
) -> Callable[[Tensor], Tensor]:
    def changed(x: Tensor) -> Tensor:
        x = x.clone()
        for edit in edits:
            own, source = views[id(edit)](x), edit.site.source_pos
            if source is None:
                own.copy_(edit.edited(own))
            else:  # the shared key or value of one position
                one = own[..., source : source + 1, :]
                one.copy_(edit.edited(one, whole=own, rows=source))
        return x

    return changed


def _attach_z(model: Model, edits: Sequence[Applied]) -> Iterator[Any]:
    for (_, layer), group in _grouped(edits, "z").items():
        yield _before(model.module(model.family.w_o, layer), _written(group, _columns))


def _attach_stream(model: Model, edits: Sequence[Applied]) -> Iterator[Any]:
    """The stream where each block takes it. What a block adds is what leaves it minus what entered it."""
    entered: dict[int, Tensor] = {}
    groups: dict[int, list[Applied]] = {}
    for edit in edits:
        if edit.site.quantity in ("stream", "block", "embed"):
            groups.setdefault(edit.site.layer + (edit.site.quantity == "block"), []).append(edit)
            if edit.site.quantity == "block":
                groups.setdefault(edit.site.layer, [])  # its input is remembered
    for layer in sorted(groups):
        yield _before(stream_reader(model, layer), _stream_written(model, layer, groups[layer], entered))


def _stream_written(
    model: Model, layer: int, edits: Sequence[Applied], entered: dict[int, Tensor]
) -> Callable[[Tensor], Tensor]:
    def changed(x: Tensor) -> Tensor:
        out = x.clone() if edits else x
        for edit in edits:
            base = {"block": entered.get(layer - 1), "embed": position_part(model, out)}.get(edit.site.quantity)
            if base is None:
                out.copy_(edit.edited(out))
            else:  # a part of the stream: the difference is added, so that its own values change nothing
                own = out - base
                out.add_(edit.edited(own) - own)
        entered[layer] = out
        return out

    return changed


def _before(module: Any, changed: Callable[[Tensor], Tensor]) -> Any:
    return module.register_forward_pre_hook(lambda _module, args: (changed(args[0]), *args[1:]))


def _after(module: Any, changed: Callable[[Tensor], Tensor]) -> Any:
    return module.register_forward_hook(lambda _module, _args, output: changed(output))


# ---- one head's keys, values and links -------------------------------------------------------------------------------
@contextmanager
def _heads(model: Model, edits: Sequence[Applied], length: int) -> Iterator[None]:
    """Make the z of edited heads again from this very run's q, k, v, and put the difference in (identity 9)."""
    family = model.family
    layers = sorted({e.site.layer for e in edits})
    parts = frozenset({"q", "k", "v", "rotary"} if family.rotary else {"q", "k", "v"})
    recorder = Recorder(model, parts, layers=frozenset(layers))
    recorder.shape = (1, length)
    patterns: dict[int, dict[int, tuple[Tensor, Tensor]]] = {}  # layer -> head -> its pattern before and after

    def z_changed(layer: int) -> Callable[[Tensor], Tensor]:
        group = [e for e in edits if e.site.layer == layer]

        def changed(x: Tensor) -> Tensor:
            x, qkv, turn = x.clone(), recorder.at(layer), _rotation(model, recorder, layer, length)
            patterns[layer] = {}
            for head in sorted({h for e in group for h in e.site.heads}):
                mine = [e for e in group if head in e.site.heads]
                change, before, after = edited_head(model, layer, head, qkv, turn, mine)
                patterns[layer][head] = before, after
                own = x[..., head * model.d_head : (head + 1) * model.d_head]
                own.copy_(own.to(model.wide) + change)
            return x

        return changed

    def pattern_changed(layer: int) -> Callable[[Tensor], Tensor]:
        def changed(output: Any) -> Any:
            pattern = output[1].clone()
            for head, (before, after) in patterns.pop(layer).items():
                pattern[:, head] = torch.where(
                    (after == before).to(pattern.device), pattern[:, head], after.to(pattern)
                )
            return (output[0], pattern, *output[2:])

        return changed

    with recorder.hooks(), ExitStack() as stack:
        for layer in layers:
            stack.callback(_before(model.module(family.w_o, layer), z_changed(layer)).remove)
            stack.callback(_after(model.module(family.attention, layer), pattern_changed(layer)).remove)
        yield


def _rotation(model: Model, recorder: Recorder, layer: int, length: int) -> tuple[Tensor, Tensor] | None:
    """cos and sin `[pos, d_rotary]` of the run in a layer; None without rotation."""
    if not model.family.rotary:
        return None
    if model.family.rotary.startswith("block."):
        cos, sin = table_rotation(model, length)
    else:
        cos, sin = recorder.buffers["rotary"][rotation_set(model, layer)][:, 0, :length]
    return cos.to(model.wide), sin.to(model.wide)
