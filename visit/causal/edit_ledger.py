"""What must hold of every edit, checked on the very edits at hand: some runs more, each in the model's own code.

A number of an edited run can be believed if a part's own values change nothing, if nothing changes before the edit, if
what follows the edit is all that the edit passes on, and if it ends with its run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pandas as pd
import torch
from torch import Tensor

from visit.activations.forward import applied, capture, plain_logits
from visit.activations.record import Activations, Applied, Edit
from visit.errors import VisitError
from visit.exact.ledger import distance, ledger, tolerance
from visit.models.model import Model

IDENTITIES = {
    21: "a part's own values change nothing",
    22: "nothing changes before the edited block",
    23: "nothing changes before the edited position",
    24: "the stream after the last edit, put into the clean run, gives the edited run's logits",
    25: "zeroing head j changes the output of W_O by −z_j W_O[j]",
    26: "without edits the run is the plain one again",
    27: "no hook stays behind",
}
MOST_HEADS = 4  # zeroed heads that are checked one by one, a run each
_Check = tuple[int, int | None, Tensor, Tensor]


def edit_ledger(model: Model, acts: Activations, edits: Sequence[Edit | Applied] | Activations) -> pd.DataFrame:
    """Check edits on the record `acts` of the run without them; `edits`: the list, or the record of the edited run.

    A table with the columns of `visit.ledger` (`identity`, `name`, `layer`, `max_abs_error`, `max_rel_error`,
    `tolerance`, `holds`): 21 to 27 are of the edits, the smaller numbers the identities of the edited record;
    `.attrs["left_out"]` says which sums the edits replace. Raises `VisitError` as `capture` does. Source: causes
    section 12.
    """
    if acts.edits:
        raise VisitError("The ledger of edits begins with a run without edits; this record was made with some.")
    edited = edits if isinstance(edits, Activations) else capture(model, acts.token_ids, edits=edits)
    rows = []
    with torch.no_grad():
        for identity, layer, found, true in _checks(model, acts, edited):
            error, largest = distance(model, found, true)
            relative = error / (largest or 1.0)
            allowed = 0.0 if identity in (22, 23, 26, 27) else tolerance(model, 2)
            rows.append((identity, IDENTITIES[identity], layer, error, relative, allowed, relative <= allowed))
    own = ledger(model, edited)
    table = pd.DataFrame(rows, columns=list(own.columns)).astype({"layer": "Int64"})
    table = pd.concat([table, own], ignore_index=True)
    table.attrs = dict(own.attrs)
    return table


def _checks(model: Model, acts: Activations, edited: Activations) -> Iterator[_Check]:
    ids, made = acts.token_ids, edited.edits
    with model.lock:
        before = _hooks(model)
        yield 21, None, plain_logits(model, ids, [_own_values(model, acts, one) for one in made]), _all(acts, "logits")
        yield from _untouched(acts, edited)
        yield (
            24,
            None,
            plain_logits(model, ids, applied(model, [_handed_on(model, edited)], ids)),
            _all(edited, "logits"),
        )
        heads = [e for e in made if e.site.node.kind == "head" and e.edit.how == "zero"]
        for one in heads[:MOST_HEADS]:
            yield 25, one.site.layer, *_taken_out(model, acts, one)
        yield 26, None, plain_logits(model, ids), _all(acts, "logits")
        yield 27, None, torch.tensor(float(_hooks(model))), torch.tensor(float(before))


def _all(acts: Activations, name: str) -> Tensor:
    part = getattr(acts, name)
    if part is None:
        raise VisitError(f"The ledger of edits needs {name!r}, which was not captured. Capture with parts=None.")
    return part


def _own_values(model: Model, acts: Activations, one: Applied) -> Applied:
    """The same edit with the clean run's own values: of a link, whose weight is made again, by a factor of 1."""
    pos = "all" if one.positions is None else one.positions
    same = replace(one.edit, how="scale", factor=1.0, source=None, pos=pos)
    if one.site.node.kind != "link":
        same = replace(same, how="from", factor=None, source=acts)
    return applied(model, [same], acts.token_ids)[0]


def _first_changed(one: Applied) -> int:
    """The first position that an edit can change."""
    first = 0 if one.positions is None else min(one.positions)
    return max(first, one.site.source_pos or 0) if one.site.per_source else first


def _untouched(acts: Activations, edited: Activations) -> Iterator[_Check]:
    """What lies before the edits: the stream that enters the first edited block, and all of the first positions."""
    first = min(_entered(one) for one in edited.edits)
    clean, now = _all(acts, "resid_pre"), _all(edited, "resid_pre")
    if first >= 0:
        yield 22, min(first, len(clean) - 1), now[: first + 1], clean[: first + 1]
    if start := min(_first_changed(one) for one in edited.edits):
        yield 23, None, now[:, :start], clean[:, :start]
        yield 23, None, _all(edited, "logits")[:start], _all(acts, "logits")[:start]


def _entered(one: Applied) -> int:
    """The last block whose input an edit leaves as it is; −1: there is none."""
    return one.site.layer - 1 if one.site.quantity in ("stream", "embed") else one.site.layer


def _handed_on(model: Model, edited: Activations) -> Edit:
    """Every position of the stream behind the last edited block, from the edited run."""
    last = max(_entered(one) for one in edited.edits)
    return Edit(f"L{last}.resid_post" if 0 <= last < model.n_layers else "L0.resid_pre", "from", edited)


def _taken_out(model: Model, acts: Activations, one: Applied) -> tuple[Tensor, Tensor]:
    """(how the output of W_O changes with this one edit, −z_j W_O[j] at its positions), before a post-norm."""
    layer, head = one.site.layer, one.site.node.head
    alone = capture(model, acts.token_ids, ("attn_out", "attn_raw"), [one])
    name = "attn_out" if acts.attn_raw is None else "attn_raw"
    change = (_all(alone, name)[layer] - _all(acts, name)[layer]).to(model.wide)
    rows = model.weight(model.family.w_o, layer).unflatten(0, (-1, model.d_head))[head]
    written = -_all(acts, "z")[layer, :, head].to(model.wide) @ rows
    at = slice(None) if one.positions is None else list(one.positions)
    expected = torch.zeros_like(change)
    expected[at] = written[at]
    whole = _all(acts, name)[layer].to(model.wide)  # the error is one of the whole output's digits
    return whole + change, whole + expected


def _hooks(model: Model) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.hf.modules())
