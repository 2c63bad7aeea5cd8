"""Interventions on one forward pass: what is asked for (`Edit`), checked against a model and a prompt (`resolved`).

From an edit to a run, in four steps:
1. `site_of` finds the numbers that the name stands for (`sites`);
2. its source becomes one vector a position: of a record or a prompt, aligned where the lengths differ, of the mean over
   a set of prompts (`means`), or a direction;
3. what contradicts itself is refused: the same numbers, at the same position, replaced twice;
4. `edit_hooks` (`edit_hooks`) writes it at the seam where the record reads.
Edits of the same numbers act in the order of the list, edits of different numbers in the order in which the pass meets
them, whatever the list's order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from visit.activations.means import Means, RunPrompts, prompt_means
from visit.activations.record import Activations, Applied, Edit, Site
from visit.activations.sites import RECORDED, in_record, site_of
from visit.errors import VisitError, check_choice
from visit.models.attention import first_visible
from visit.models.model import Model
from visit.text.alignment import token_partners
from visit.text.visible import visible

ALL_HOWS = ("zero", "mean", "from", "scale", "add")
REPLACING = ("zero", "mean", "from")  # what was there before does not matter any more
MAX_EDITS = 1_000


def resolved(
    model: Model, edits: Iterable[Edit | Applied], ids: Sequence[int], run: RunPrompts
) -> tuple[Applied, ...]:  # fmt: skip
    """Check edits against a model and a prompt, and turn their sources into numbers; may run the model for a source.

    `run`: how prompts are run without edits (`capture_many`, which lies above). Raises `VisitError` for what does not
    exist here, a source that is missing or of another model, a factor that is no number, more than 1,000 edits, and
    edits that contradict each other.
    """
    if isinstance(edits, Edit | Applied) or not isinstance(edits, Iterable):
        raise VisitError(f"edits is a list of visit.Edit(node_id, how, …); got {type(edits).__name__}.")
    edits = list(edits)
    if len(edits) > MAX_EDITS:
        raise VisitError(
            f"One run takes at most {MAX_EDITS:,} edits; got {len(edits):,}. To try many parts one by one use "
            "visit.effects."
        )
    found = []
    for edit in edits:
        if not isinstance(edit, Edit | Applied):
            raise VisitError(f"edits holds visit.Edit(node_id, how, …); got {type(edit).__name__} {edit!r}.")
        found.append(edit if isinstance(edit, Applied) else _without_source(_apply(model, edit, tuple(ids), run)))
    _check_together(found)
    return tuple(found)


def _apply(model: Model, edit: Edit, ids: tuple[int, ...], run: RunPrompts) -> Applied:
    site = site_of(model, edit.node_id)
    check_choice("How of an edit", edit.how, ALL_HOWS)
    _check_factor(edit)
    positions = _positions(model, edit, site, len(ids))
    if edit.how == "from":
        return _from(model, edit, site, positions, ids, run)
    values = beyond = None
    if edit.how == "mean" and site.node.kind == "link":
        raise VisitError(
            f"The weight of a link depends on who attends: a mean of {edit.node_id!r} says nothing. Use zero or scale."
        )
    if edit.how == "mean" and edit.source is not None:
        values, beyond = _mean_of(model, edit, site, len(ids), run)
    elif edit.how == "add":
        values = _direction(model, edit, site, len(ids), run)
    elif edit.how != "mean" and edit.source is not None:
        raise VisitError(f"A source belongs to 'from', 'mean' and 'add'; {edit.node_id!r} is edited by {edit.how!r}.")
    return Applied(edit, site, positions, values, beyond)


def _without_source(made: Applied) -> Applied:
    """The numbers are taken: a record that is kept must not keep other records alive."""
    source = made.edit.source
    if source is None:
        return made
    return replace(made, edit=replace(made.edit, source=None), origin=_source_words(source))


def _source_words(source: Any) -> str:
    """What a source is, for those who read what was done."""
    if isinstance(source, Activations):
        return f"“{source.prompt}”"
    if isinstance(source, str):
        return f"“{source}”"
    if isinstance(source, Means):
        return f"the mean of {source.prompts:,} prompts"
    if is_prompt(source):
        return f"{len(source):,} tokens"
    if isinstance(source, tuple | list) and len(source) == 2 and all(isinstance(s, str | Activations) for s in source):
        return f"{_source_words(source[0])} minus {_source_words(source[1])}"
    prompts = getattr(source, "prompts", source)
    return "a vector" if isinstance(prompts, Tensor) or not hasattr(prompts, "__len__") else f"{len(prompts):,} prompts"


def _check_factor(edit: Edit) -> None:
    factor = edit.factor
    if factor is None:
        if edit.how == "scale":
            raise VisitError(f"To scale {edit.node_id!r} give a factor, as factor=0.5; got none.")
        return
    if edit.how not in ("scale", "add"):
        raise VisitError(f"A factor belongs to 'scale' and 'add'; {edit.node_id!r} is edited by {edit.how!r}.")
    if isinstance(factor, bool) or not isinstance(factor, Real) or not math.isfinite(factor):
        raise VisitError(f"The factor of an edit must be a finite number; got {factor!r} for {edit.node_id!r}.")


# ---- where -----------------------------------------------------------------------------------------------------------
def _positions(model: Model, edit: Edit, site: Site, length: int) -> tuple[int, ...] | None:
    """The positions at which an edit acts, sorted; None for all."""
    source = site.source_pos
    if source is not None and source >= length:
        raise VisitError(f"{edit.node_id!r} names position {source}; this prompt has the positions 0 to {length - 1}.")
    if isinstance(edit.pos, str):
        if edit.pos != "all":
            raise VisitError(f"pos must be 'all', a position, or several; got {edit.pos!r} for {edit.node_id!r}.")
        return (source,) if site.node.kind == "embed" and source is not None else None
    several = edit.pos if isinstance(edit.pos, Iterable) else (edit.pos,)
    found = set()
    for pos in several:
        if isinstance(pos, bool) or not hasattr(pos, "__index__"):
            raise VisitError(f"pos must be 'all', a position, or several; got {edit.pos!r} for {edit.node_id!r}.")
        if not -length <= pos < length:
            raise VisitError(
                f"The position of an edit must be from 0 to {length - 1} (or -{length} to -1) in this prompt; "
                f"got {pos} for {edit.node_id!r}."
            )
        found.add(int(pos) % length)
    if not found:
        raise VisitError(f"pos must name at least one position; got none for {edit.node_id!r}.")
    if site.node.kind == "embed" and source is not None and found != {source}:
        raise VisitError(f"{edit.node_id!r} says its position itself; got pos={edit.pos!r}. Leave pos out.")
    if site.per_source and source is not None:
        blind = [q for q in sorted(found) if not first_visible(model, site.layer, q) <= source <= q]
        if blind:
            raise VisitError(
                f"Position {blind[0]} does not see position {source} in layer {site.layer}: {edit.node_id!r}."
            )
    return tuple(sorted(found))


# ---- with what -------------------------------------------------------------------------------------------------------
def is_prompt(source: Any) -> bool:
    return isinstance(source, str) or (
        isinstance(source, Sequence) and len(source) > 0 and all(isinstance(i, Integral) for i in source)
    )


def _record(model: Model, source: Any, edit: Edit, run: RunPrompts) -> Activations:
    """The run that values come from: the record itself, or the prompt's."""
    if isinstance(source, Activations):
        return source
    if is_prompt(source):
        return next(iter(run(model, [source], RECORDED[site_of(model, edit.node_id).quantity])))
    raise VisitError(
        f"The source of an edit {edit.how!r} is a record or a prompt; got {type(source).__name__} for {edit.node_id!r}."
    )


def _values(model: Model, acts: Activations, site: Site) -> Float[Tensor, "pos width"]:
    values = in_record(model, acts, site.quantity, site.layer)
    if values.shape[-1] < site.columns.stop:
        raise VisitError(f"The edit's source is of another model: {str(site.node)!r} does not exist there.")
    return values[:, site.columns]


def _texts(model: Model, *sides: Sequence[int]) -> Any:
    return tuple([model.vocabulary[i] for i in ids] for ids in sides)


def _from(
    model: Model, edit: Edit, site: Site, positions: tuple[int, ...] | None, ids: tuple[int, ...], run: RunPrompts
) -> Applied:  # fmt: skip
    """The values of another run, position by position where it is as long, else by the alignment of the tokens."""
    if edit.source is None:
        raise VisitError("An edit 'from' needs a source: the record of the run to take the values from, or its prompt.")
    acts = _record(model, edit.source, edit, run)
    other = acts.token_ids
    same = len(other) == len(ids)
    partner = {i: i for i in range(len(ids))} if same else token_partners(ids, other, _texts(model, ids, other))
    source, link = site.source_pos, site.node.kind == "link"
    needed = [source] if site.per_source and source is not None else list(positions or ())
    needed += list(positions or ()) if link else []
    if lacking := [i for i in needed if i not in partner]:
        raise VisitError(
            f"The source of {edit.node_id!r} has {len(other)} tokens, this prompt {len(ids)}, and position "
            f"{lacking[0]} (“{visible(model.vocabulary[ids[lacking[0]]])}”) has no partner there. Choose positions "
            "that have one, or a source of equal length."
        )
    if link:
        acts.index(0, whole=True)
        if acts.pattern is None:
            raise VisitError("The edit's source was captured without 'pattern'; capture it with all parts.")
        theirs = acts.pattern[site.layer, site.heads[0], :, partner[source]][:, None]  # type: ignore[index]
    else:
        theirs = _values(model, acts, site)
    values = theirs.new_zeros(len(ids), site.width)
    values[list(partner)] = theirs[list(partner.values())]
    note = ""
    if not same and (link or not site.per_source) and positions is None:
        positions = tuple(sorted(i for i in partner if not link or i >= source))  # type: ignore[operator]
        alone = [i for i in range(len(ids)) if i not in partner]
        words = ", ".join(f"“{visible(model.vocabulary[ids[i]])}” (position {i})" for i in alone)
        note = f"{edit.node_id} from a text of {len(other)} tokens: {words} without a partner there, left as it is."
        note = note if alone else ""
    return Applied(edit, site, positions, values, None, note)


def _mean_of(model: Model, edit: Edit, site: Site, length: int, run: RunPrompts) -> tuple[Tensor, Tensor | None]:
    """(a vector a position or one for all, the vector past the prompt) of a mean."""
    source = edit.source
    if isinstance(source, Activations) or is_prompt(source):
        return _values(model, _record(model, source, edit, run), site).mean(-2, keepdim=True), None
    if not isinstance(source, Means):
        prompts = getattr(source, "prompts", source)  # a set of prompts has them
        if not isinstance(prompts, Iterable) or not (prompts := list(prompts)):
            raise VisitError(
                f"The source of an edit 'mean' is a set of prompts, or a record; got {type(source).__name__} for "
                f"{edit.node_id!r}."
            )
        source = prompt_means(model, prompts, site.quantity, run)
    values, beyond = source.at(site.quantity, site.layer, length)
    return values[:, site.columns], beyond[None, site.columns]


def _direction(model: Model, edit: Edit, site: Site, length: int, run: RunPrompts) -> Float[Tensor, "pos width"]:
    """The vector that is added: given, or the difference of two runs at their last positions."""
    source = edit.source
    if source is None:
        raise VisitError(
            f"An edit 'add' needs a source: the vector to add to {edit.node_id!r}, or a pair of prompts (b, a), whose "
            "difference it is."
        )
    pair = isinstance(source, tuple | list) and len(source) == 2
    if pair and all(isinstance(s, Activations) or is_prompt(s) for s in source):
        if site.node.kind == "link":
            raise VisitError("A link has no direction: give the number to add to its weight as source.")
        b, a = (_values(model, _record(model, s, edit, run), site)[-1:] for s in source)
        return b - a
    try:
        vector = torch.as_tensor(source, device=model.device, dtype=model.wide)
    except (TypeError, ValueError, RuntimeError):
        vector = torch.empty(0)
    vector = vector.reshape(1, -1) if vector.dim() < 2 else vector
    if vector.shape not in ((1, site.width), (length, site.width)):
        raise VisitError(
            f"What is added to {edit.node_id!r} must be a vector of {site.width} numbers, or one for each of the "
            f"{length} positions, or a pair of prompts; got "
            f"{list(torch.as_tensor(source).shape) if isinstance(source, Tensor) else type(source).__name__}."
        )
    if not bool(vector.isfinite().all()):
        raise VisitError(f"What is added to {edit.node_id!r} must be finite numbers; got NaN or infinity.")
    return vector


# ---- together --------------------------------------------------------------------------------------------------------
def _check_together(edits: Sequence[Applied]) -> None:
    """Refuse the same numbers, at the same position, replaced twice: the second would undo the first."""
    groups: dict[tuple[str, int], list[Applied]] = {}
    for one in edits:
        if one.edit.how not in REPLACING:
            continue
        for other in groups.setdefault(_numbers(one.site), []):
            if _overlap(one, other):
                raise VisitError(
                    f"{other.edit.node_id!r} ({other.edit.how}) and {one.edit.node_id!r} ({one.edit.how}) replace the "
                    "same numbers at the same position. Leave one of them out; only scale and add can follow another "
                    "edit."
                )
        groups[_numbers(one.site)].append(one)


def _numbers(site: Site) -> tuple[str, int]:
    """Which tensor of the pass a site's numbers are of: a block's output is the stream after it."""
    if site.quantity in ("block", "embed"):
        return "stream", site.layer + (site.quantity == "block")
    return site.quantity, site.layer


def _overlap(a: Applied, b: Applied) -> bool:
    if a.site.per_source:
        if a.site.source_pos != b.site.source_pos or not set(a.site.heads) & set(b.site.heads):
            return False
    elif a.site.columns.stop <= b.site.columns.start or b.site.columns.stop <= a.site.columns.start:
        return False
    return a.positions is None or b.positions is None or bool(set(a.positions) & set(b.positions))


# what an edit cuts: a part of the pass that does not follow any more from what it is otherwise made of
_CUTS = {
    "head": "z", "attn_neuron": "z", "value": "z", "kv_value": "z", "key": "pattern", "kv_key": "pattern",
    "link": "pattern", "query": "scores", "mlp_value": "neurons", "attn_out": "attn_out", "mlp_out": "mlp_out",
    "block": "stream", "resid_post": "stream", "resid_pre": "stream",
}  # fmt: skip


def cut_by(edits: Iterable[Applied]) -> set[tuple[str, int]]:
    """(part, layer) of what is no longer made as a record says: "z" of the pattern and v, "attn_out" and "mlp_out" of
    heads and neurons, "neurons" of what the MLP reads, "stream" (`resid_post`) of what is added to it, "pattern" of q
    and k, "scores" of `ln1_out`.
    """
    found: set[tuple[str, int]] = set()
    for one in edits:
        kind, layer = one.site.node.kind, one.site.node.layer
        if kind == "embed" or layer is None or (kind == "resid_pre" and layer == 0):
            continue  # the embedding is where sums begin
        what = _CUTS[kind]
        if kind in ("kv_key", "kv_value") and one.positions is None:  # the record has it as it was edited
            if kind == "kv_value":
                continue
            what = "scores"
        found.add((what, layer - (kind == "resid_pre")))
    return found
