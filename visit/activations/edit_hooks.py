"""Edits written into a pass, at the seams where the record reads, for as long as a `with` block.

Inputs of W_O and W_out, outputs of what writes into the stream, the stream where a block takes it, queries, keys and
values where they leave their projection or its norm. What one head makes of a key or value that it shares with others,
and of one link, has no seam: its z is made again (`edited_heads`), and the difference is put into the input of W_O and
into the pattern. All of it is attached before the recorder, so that the record shows the edited run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from visit.activations.edited_heads import edited_head
from visit.activations.hooks import Recorder
from visit.activations.record import Applied
from visit.activations.sites import position_part
from visit.models.attention import qk_norm, rotation_set, table_rotation, visible_keys
from visit.models.model import Model, stream_reader

Counts = dict[int, tuple[Any, int]]  # place in the list -> (numbers that became others, numbers that were written)
Placed = tuple[int, Applied]  # an edit and its place in the list


@contextmanager
def edit_hooks(model: Model, edits: Sequence[Applied], length: int) -> Iterator[Counts]:
    """Attach edits for one run of `length` positions; they go with the block, also when the pass fails.

    Hold `model.lock` around it, and attach recorders inside. Yields what each edit changes, filled by the run.
    """
    counts: Counts = {}
    placed = list(enumerate(edits))
    with ExitStack() as stack:
        for handle in _attach(model, [e for e in placed if not _by_head(e[1])], counts):
            stack.callback(handle.remove)
        by_head = [e for e in placed if _by_head(e[1])]
        if by_head:
            stack.enter_context(_heads(model, by_head, length, counts))
        for handle in _attach_z(model, placed, counts):  # after the heads were made again: z is what comes of them
            stack.callback(handle.remove)
        yield counts


def with_counts(edits: Sequence[Applied], counts: Counts) -> tuple[Applied, ...]:
    """The edits of a run that is over, each with what it changed."""
    return tuple(replace(edit, changed=(int(counts[i][0]), counts[i][1])) for i, edit in enumerate(edits))


def _put(own: Tensor, new: Tensor, edit: Placed, counts: Counts) -> None:
    """Write the new numbers over the old ones, and count them."""
    place, one = edit
    changed, written = counts.get(place, (0, 0))
    share = own.shape[-2] if one.positions is None or own.shape[-2] == 1 else len(one.positions)
    counts[place] = changed + (new != own).sum(), written + own.numel() // own.shape[-2] * share
    own.copy_(new)


def _by_head(edit: Applied) -> bool:
    """Whether the edit has no seam: it holds for some heads of a group, or for some queries, or is a link."""
    return edit.site.per_source and not (edit.site.node.kv_head is not None and edit.positions is None)


def _written(edits: Sequence[Placed], counts: Counts) -> Callable[[Tensor], Tensor]:
    """What a seam's tensor becomes: a copy, in which each edit changes its own numbers, in their order."""

    def changed(x: Tensor) -> Tensor:
        x = x.clone()
        for edit in edits:
            own = x[..., edit[1].site.columns]
            _put(own, edit[1].edited(own), edit, counts)
        return x

    return changed


def _grouped(edits: Sequence[Placed], *quantities: str) -> dict[tuple[str, int], list[Placed]]:
    found: dict[tuple[str, int], list[Placed]] = {}
    for edit in edits:
        if edit[1].site.quantity in quantities:
            found.setdefault((edit[1].site.quantity, edit[1].site.layer), []).append(edit)
    return found


def _attach(model: Model, edits: Sequence[Placed], counts: Counts) -> Iterator[Any]:
    """Hooks at every seam but the input of W_O."""
    family = model.family
    yield from _attach_stream(model, edits, counts)
    for (_, layer), group in _grouped(edits, "neurons").items():
        yield _before(model.module(family.w_out, layer), _written(group, counts))
    sums = {"attn_out": family.post_attn or family.w_o, "mlp_out": family.post_mlp or family.w_out}
    for (name, layer), group in _grouped(edits, *sums).items():  # past the post-norm: the sum as the stream gets it
        yield _after(model.module(sums[name], layer), _written(group, counts))
    for (name, layer), group in _grouped(edits, "q", "k", "v").items():
        seams = [projection(model, name, layer, e.site.columns.start // model.d_head) for _, e in group]
        yield _after(seams[0][0], _written_projection(group, [view for _, view in seams], counts))


def _written_projection(
    edits: Sequence[Placed], views: Sequence[Callable[[Tensor], Tensor]], counts: Counts
) -> Callable[[Tensor], Tensor]:
    def changed(x: Tensor) -> Tensor:
        x = x.clone()
        for edit, view in zip(edits, views, strict=True):
            own, source = view(x), edit[1].site.source_pos
            if source is None:
                _put(own, edit[1].edited(own), edit, counts)
            else:  # the shared key or value of one position
                one = own[..., source : source + 1, :]
                _put(one, edit[1].edited(one, whole=own, rows=source), edit, counts)
        return x

    return changed


def _attach_z(model: Model, edits: Sequence[Placed], counts: Counts) -> Iterator[Any]:
    for (_, layer), group in _grouped(edits, "z").items():
        yield _before(model.module(model.family.w_o, layer), _written(group, counts))


def _attach_stream(model: Model, edits: Sequence[Placed], counts: Counts) -> Iterator[Any]:
    """The stream where each block takes it. What a block adds is what leaves it minus what entered it."""
    entered: dict[int, Tensor] = {}
    groups: dict[int, list[Placed]] = {}
    for edit in edits:
        site = edit[1].site
        if site.quantity in ("stream", "block", "embed"):
            groups.setdefault(site.layer + (site.quantity == "block"), []).append(edit)
            if site.quantity == "block":
                groups.setdefault(site.layer, [])  # its input is remembered
    for layer in sorted(groups):
        changed = _stream_written(model, layer, groups[layer], entered, counts)
        yield _before(stream_reader(model, layer), changed)


def _stream_written(
    model: Model, layer: int, edits: Sequence[Placed], entered: dict[int, Tensor], counts: Counts
) -> Callable[[Tensor], Tensor]:
    def changed(x: Tensor) -> Tensor:
        out = x.clone() if edits else x
        for edit in edits:
            quantity = edit[1].site.quantity
            base = {"block": entered.get(layer - 1), "embed": position_part(model, out)}.get(quantity)
            if base is None:
                _put(out, edit[1].edited(out), edit, counts)
            else:  # a part of the stream: the difference is added, so that its own values change nothing
                base = base.to(out.device)  # blocks of a model spread over cards
                part = out - base
                new = edit[1].edited(part)
                out.add_(new - part)
                _put(part, new, edit, counts)
        entered[layer] = out
        return out

    return changed


def _before(module: Any, changed: Callable[[Tensor], Tensor]) -> Any:
    return module.register_forward_pre_hook(lambda _module, args: (changed(args[0]), *args[1:]))


def _after(module: Any, changed: Callable[[Tensor], Tensor]) -> Any:
    return module.register_forward_hook(lambda _module, _args, output: changed(output))


# ---- one head's keys, values and links -------------------------------------------------------------------------------
@contextmanager
def _heads(model: Model, edits: Sequence[Placed], length: int, counts: Counts) -> Iterator[None]:
    """Make the z of edited heads again from this very run's q, k, v, and put the difference in (identity 9)."""
    family = model.family
    layers = sorted({e.site.layer for _, e in edits})
    parts = frozenset({"q", "k", "v", "rotary"} if family.rotary else {"q", "k", "v"})
    recorder = Recorder(model, parts, layers=frozenset(layers))
    recorder.shape = (1, length)
    patterns: dict[int, dict[int, tuple[Tensor, Tensor]]] = {}  # layer -> head -> its pattern before and after

    def z_changed(layer: int) -> Callable[[Tensor], Tensor]:
        group = [e for e in edits if e[1].site.layer == layer]

        def changed(x: Tensor) -> Tensor:
            x, qkv, turn = x.clone(), recorder.at(layer), _rotation(model, recorder, layer, length)
            patterns[layer] = {}
            for head in sorted({h for _, e in group for h in e.site.heads}):
                mine = [e for e in group if head in e[1].site.heads]
                change, before, after = edited_head(model, layer, head, qkv, turn, [e for _, e in mine])
                _count_rows(model, mine, change, counts)
                patterns[layer][head] = before, after
                own = x[..., head * model.d_head : (head + 1) * model.d_head]
                own.copy_(own.to(model.wide) + change.to(own.device))
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


def _count_rows(model: Model, edits: Sequence[Placed], change: Tensor, counts: Counts) -> None:
    """Count z at the queries that see what is edited; edits of one head together are counted each."""
    for place, edit in edits:
        sees = visible_keys(model, edit.site.layer, len(change))[:, edit.site.source_pos].nonzero()[:, 0]
        rows = change[sees if edit.positions is None else list(edit.positions)]
        changed, written = counts.get(place, (0, 0))
        counts[place] = changed + (rows != 0).sum(), written + rows.numel()


def _rotation(model: Model, recorder: Recorder, layer: int, length: int) -> tuple[Tensor, Tensor] | None:
    """cos and sin `[pos, d_rotary]` of the run in a layer; None without rotation."""
    if not model.family.rotary:
        return None
    if model.family.rotary.startswith("block."):
        cos, sin = table_rotation(model, length)
    else:
        cos, sin = recorder.buffers["rotary"][rotation_set(model, layer)][:, 0, :length]
    return cos.to(model.wide), sin.to(model.wide)


def projection(model: Model, name: str, layer: int, head: int) -> tuple[Any, Callable[[Tensor], Tensor]]:
    """(module, view): whose output holds the queries, keys or values ("q", "k", "v") of one head, and where in it.

    They are those that enter the rotation, as the record has them: past a norm of queries and keys where there is one.
    `view(output)`: `[…, pos, d_head]`, a view that can be written.
    """
    family, norm = model.family, qk_norm(model, name, layer) if name in "qk" else None
    start = head * model.d_head
    if norm is None and len(family.qkv) == 1:
        width = (model.n_heads + 2 * model.n_kv_heads) * model.d_head
        start = int(model.split_qkv(torch.arange(width))["qkv".index(name)][head, 0])
    columns = slice(start, start + model.d_head)

    def view(x: Tensor) -> Tensor:
        if norm is not None and x.dim() == 4:
            return (x.transpose(1, 2) if family.heads_first else x)[..., head, :]
        return x[..., columns]

    path = family.qkv[0 if len(family.qkv) == 1 else "qkv".index(name)]
    return (model.module(path, layer) if norm is None else norm), view
