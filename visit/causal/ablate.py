"""One run with a list of edits beside the same run without: what becomes of the prediction.

1. The edited run is captured (`activations.edits` says what an edit is and where it is written).
2. Both predictions at the position are compared: the target's probability, rank and logit, its distance to the
   distractor, the divergence of the whole prediction, and the words that change most.
3. `ledger` checks what must hold for these very edits (`causal.edit_ledger`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from visit.activations.forward import capture
from visit.activations.record import Activations, Applied, Edit
from visit.causal.edit_ledger import edit_ledger
from visit.causal.effects import divergence_bits
from visit.errors import VisitError, check_kind
from visit.exact.decompose import needed
from visit.exact.ledger import summary
from visit.exact.question import Question, ask
from visit.lenses.logit import lens_logits, read_logits
from visit.models.model import Model

NEXT_WORDS = 10


@dataclass(frozen=True, eq=False)
class Ablation:
    """What a list of edits does to one prediction. `question`: the clean run, what it is asked; `edited`: its record.

    `table`: a row a quantity (`prob`, `rank`, `logit`, `difference`), columns `before`, `after`, `change`. logit: the
    target's, centred, before a soft-cap; difference: target − distractor, before it, missing without one.
    `words`: the ten words whose probability changes most: `token`, `prob_before`, `prob_after`, `change`,
    `rank_before`, `rank_after`. `kl_bits`: KL(clean ‖ edited) of the whole prediction.
    """

    question: Question
    edited: Activations
    table: pd.DataFrame
    words: pd.DataFrame
    kl_bits: float

    @property
    def edits(self) -> pd.DataFrame:
        """A row an edit: `node`, `how`, `factor`, `positions` (None: all), `changed` of `numbers`, `note`."""
        return pd.DataFrame([one.meta for one in self.edited.edits])

    @property
    def changed(self) -> tuple[int, int]:
        """(k, n): the edits changed k of the n numbers that they were written to."""
        pairs = [one.changed or (0, 0) for one in self.edited.edits]
        return sum(k for k, _ in pairs), sum(n for _, n in pairs)

    @property
    def notes(self) -> list[str]:
        """What an edit left as it was or acts on beside its name, and edits that changed nothing: sentences."""
        made, family = self.edited.edits, self.question.model.family
        notes = [one.note for one in made if one.note]
        for one in made:
            if one.site.node.kv_head is not None:
                heads = ", ".join(f"H{j}" for j in one.site.heads)
                notes.append(f"{one.edit.node_id} is shared: it is edited for {heads}.")
        if family.post_attn and any(one.site.quantity in ("z", "neurons", "q", "k", "v", "pattern") for one in made):
            notes.append(
                "A norm stands between these parts and the stream. It is computed anew with the edits, so that the "
                "other parts are scaled, too; contribution and influence hold it fixed."
            )
        idle = [one.edit.node_id for one in self.edited.edits if one.changed and not one.changed[0]]
        return notes + [f"The edit of {name} changed nothing: these numbers are its own already." for name in idle]

    @cached_property
    def ledger(self) -> pd.DataFrame:
        """What must hold of these edits, checked now: some more runs (`edit_ledger`)."""
        return edit_ledger(self.question.model, self.question.acts, self.edited)

    @property
    def meta(self) -> dict[str, Any]:
        """What it is of: the question's header, `edits`, `kl_bits`, `changed`, `numbers`, `notes`."""
        changed, numbers = self.changed
        edits = [one.meta for one in self.edited.edits]
        return {**self.question.meta, "edits": edits, "kl_bits": self.kl_bits, "changed": changed, "numbers": numbers,
                "notes": self.notes}  # fmt: skip

    @property
    def ledger_summary(self) -> dict[str, object]:
        """The ledger in one line: the largest relative error, and whether all holds."""
        return summary(self.ledger)


def ablate(
    model: Model,
    acts: Activations,
    edits: Sequence[Edit | Applied] | Edit,
    pos: int = -1,
    target: int | str | None = None,
    distractor: int | str | None = None,
) -> Ablation:
    """Run a prompt again with parts taken out or replaced, and say what becomes of the prediction at `pos`.

    `acts`: the record of the run without edits; `edits`: one or a list (`Edit`); `target` None: the clean prediction.
    Raises `VisitError` for edits that cannot be made, none at all, edits that leave the range of numbers, a record
    that is itself of an edited run, and for words or positions that do not exist. Source: causes section 12 (ours).
    """
    question = ask(model, acts, pos, target, distractor)
    if acts.edits:
        raise VisitError("An ablation begins with a run without edits; this record was made with some. Capture anew.")
    check_kind("edits", edits, (Edit, Applied, Iterable), 'one or a list of them, as visit.Edit("L9.head6")')
    edits = [edits] if isinstance(edits, Edit | Applied) else list(edits)
    if not edits:
        raise VisitError('An ablation needs at least one edit, as visit.Edit("L9.head6"); got none.')
    edited = capture(model, acts.token_ids, edits=edits)
    edited = replace(edited, prompt=acts.prompt, chat=acts.chat)
    if not torch.isfinite(needed(edited, "logits")[question.pos]).all():
        raise VisitError(
            "With these edits the run leaves the range of its numbers: nothing is predicted. Take smaller factors."
        )
    with torch.no_grad():
        table, words, bits = _before_and_after(question, edited)
    return Ablation(question, edited, table, words, bits)


def _before_and_after(question: Question, edited: Activations) -> tuple[pd.DataFrame, pd.DataFrame, float]:
    model, t = question.model, question.pos
    sides = []
    for acts in (question.acts, edited):
        logits = needed(acts, "logits")[t : t + 1].to(model.wide)  # the model's own, past a soft-cap
        state = needed(acts, "resid_post")[-1, t : t + 1]
        uncapped = logits if model.logit_cap is None else next(x for _, x in lens_logits(model, state))
        sides.append((logits, uncapped))
    scores = [_answer(question, *side) for side in sides]
    table = pd.DataFrame(scores, index=["before", "after"]).T
    table["change"] = table["after"] - table["before"]
    table = table.reset_index(names="quantity")
    (clean, clean_order), (changed, changed_order) = sides
    bits = float(divergence_bits(clean, changed)[0])
    probs = clean.softmax(-1)[0], changed.softmax(-1)[0]
    most = (probs[1] - probs[0]).abs().topk(min(NEXT_WORDS, model.d_vocab)).indices
    words = pd.DataFrame(
        {
            "token": [model.vocabulary[i] for i in most.tolist()],
            "prob_before": probs[0][most].tolist(),
            "prob_after": probs[1][most].tolist(),
            "change": (probs[1] - probs[0])[most].tolist(),
            "rank_before": _ranks_of(clean_order[0], most),
            "rank_after": _ranks_of(changed_order[0], most),
        }
    )
    return table, words, bits


def _ranks_of(logits: Tensor, words: Tensor) -> list[int]:
    return (1 + (logits[None] > logits[words][:, None]).sum(-1)).tolist()


def _answer(question: Question, logits: Tensor, uncapped: Tensor) -> dict[str, float]:
    """Target and prediction of one run. `logits`: the model's own; `uncapped`: before a soft-cap, `[one, d_vocab]`."""
    found = read_logits(question.model, uncapped, question.target, k=1, cap=question.model.logit_cap)
    assert found.rank is not None
    own = uncapped[0, question.target]
    other = math.nan if question.distractor is None else float(uncapped[0, question.distractor])
    return {
        "prob": float(logits.softmax(-1)[0, question.target]),
        "rank": int(found.rank[0]),
        "logit": float(own - uncapped.mean()),
        "difference": float(own) - other,
    }
