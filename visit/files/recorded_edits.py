"""Interventions of a recorded run: the vectors that they put into it, written down so that the run can be made again.

An edit that zeroes, scales or takes the run's own mean says all by its name. One with a source took numbers from
another run, a set of prompts, or whoever made it; where a recording is checked that source is not at hand, but its
numbers are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from visit.errors import VisitError, check_choice
from visit.files.recorded_values import StoredValues, WrittenValues, told_as_broken
from visit.files.recording_file import broken_file

if TYPE_CHECKING:
    from torch import Tensor

    from visit.activations.record import Applied, Edit
    from visit.models.model import Model

_SOURCED = ("from", "mean", "add")


def write_edits(out: WrittenValues, owner: str, edits: tuple[Applied, ...]) -> None:
    """The vectors of the edits that have some."""
    for n, one in enumerate(edits):
        if one.values is not None:
            wide = one.values.double() if one.values.element_size() > 4 else one.values.float()
            out.arrays[f"{owner}/edits/{n}"] = np.ascontiguousarray(wide.cpu().numpy().reshape(-1))


def edits_again(
    said: list[dict[str, Any]], stored: StoredValues, owner: str, ids: tuple[int, ...], model: Model
) -> list[Edit | Applied]:  # fmt: skip
    """The edits of a recorded run, as `capture` takes them. Raises `VisitError` for one that cannot be made here.

    `said`: what the run's graph says of them; `stored`, `owner`: where their vectors stand; `ids`: the run's tokens.
    A recording that was written before the vectors were kept has none: then an edit with a source cannot be made again.
    """
    from visit.activations.forward import applied
    from visit.activations.record import Edit

    found: list[Edit | Applied] = []
    with told_as_broken():
        for n, one in enumerate(said):
            name, where = one["node"], "all" if one["positions"] is None else tuple(one["positions"])
            edit = Edit(name, one["how"], None, where, one["factor"])
            if one["source"] is None:
                found.append(edit)
                continue
            placed = applied(model, [Edit(name, pos=where)], ids)[0]  # its name and positions, checked
            vectors = _vectors(stored, f"{owner}/edits/{n}", edit, placed.site.width, len(ids))
            found.append(replace(placed, edit=edit, values=vectors.to(model.device)))
    return found


def _vectors(stored: StoredValues, key: str, edit: Edit, width: int, length: int) -> Tensor:
    """`[pos, width]`, or `[1, width]`: what an edit with a source put in."""
    import torch

    if key not in stored.arrays:
        raise VisitError(
            f"This recording does not hold what its edit of {edit.node_id!r} put in, so the run cannot be made again. "
            "Record it anew to have it checked."
        )
    check_choice("How of a recorded edit with a source", edit.how, _SOURCED)
    values = stored.array(key, "f")
    if len(values) not in (width, width * length):
        raise broken_file(f"its edit of {edit.node_id!r} has {len(values):,} numbers")
    return torch.from_numpy(values.reshape(-1, width).copy())
