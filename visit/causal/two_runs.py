"""Two prompts side by side: which token of one stands for which of the other, what each answers, and how far apart.

m is the logit of B's answer minus that of A's, before a soft-cap, at the last position: what a patch of B's values into
A's run is measured by.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from visit.activations.forward import capture_many
from visit.activations.record import Activations, check_pass
from visit.activations.sites import in_record
from visit.errors import VisitError
from visit.exact.decompose import needed
from visit.exact.question import Question, ask
from visit.lenses.logit import final_norm, lens_logits
from visit.models.attention import grows
from visit.models.model import Model
from visit.text.alignment import token_partners
from visit.text.numbers import number
from visit.text.visible import as_word, visible

LEAST_GAP = 0.1  # logits between m(A) and m(B), below which no share of them means anything


@dataclass(frozen=True, eq=False)
class TwoRuns:
    """Two runs side by side, and what a patch of B into A is measured by.

    `question`: A's run at its last position, B's answer as target, A's as distractor. `partners`: position in A → its
    partner in B; `first`: the first position at which the two runs differ. `m_a`, `m_b`: logits.
    """

    question: Question
    b: Activations
    partners: dict[int, int]
    first: int
    m_a: float
    m_b: float

    @cached_property
    def patched(self) -> list[int]:
        """Positions of A that hold other numbers than B's, and have a partner there."""
        return [i for i in sorted(self.partners) if i >= self.first]

    def notes(self, by_position: bool) -> list[str]:
        """What is not patched, and why, in sentences. `by_position`: of a map that has a cell for every position."""
        tokens = self.question.acts.tokens
        notes = []
        if self.first and by_position:
            where = "The first position holds" if self.first == 1 else f"Positions 0 to {self.first - 1} hold"
            notes.append(
                f"{where} the same tokens in both prompts, and so the same numbers: a patch there changes nothing."
            )
        alone = [i for i in range(len(tokens)) if i not in self.partners]
        words = ", ".join(f"“{visible(tokens[i])}” (position {i})" for i in alone)
        return notes + ([f"Without a partner in the other prompt, and so not patched: {words}."] if alone else [])


def two_runs(
    model: Model, prompt_a: Any, prompt_b: Any, target: int | str | None = None, distractor: int | str | None = None
) -> TwoRuns:
    """Run both prompts (or take their records), pair their tokens, and find what each answers."""
    a, b = _unedited_runs(model, prompt_a, prompt_b)
    same = len(a.token_ids) == len(b.token_ids)
    partners = (
        {i: i for i in range(len(a.tokens))} if same else token_partners(a.token_ids, b.token_ids, (a.tokens, b.tokens))
    )
    first = _first_difference(model, a, b)
    if not any(a.token_ids[i] == b.token_ids[j] for i, j in partners.items()):
        raise VisitError(
            "The two prompts have no token in common: nothing says which place of one stands for which of the other. "
            "Take two prompts that differ in a word or two."
        )
    if not any(i >= first for i in partners):
        raise VisitError(
            "Where the two prompts have tokens in common they are the same from the start, so that both runs hold the "
            "same numbers there: nothing can be patched. Let them differ in a word before the end."
        )
    states = torch.stack([needed(record, "resid_post")[-1, -1] for record in (a, b)]).to(model.wide)
    with torch.no_grad():
        asked = target is None or distractor is None  # else nothing is unembedded: of a short pass the largest product
        answers = torch.cat([x.argmax(-1) for _, x in lens_logits(model, states)]).tolist() if asked else []
        words = [
            answers[1] if target is None else model.token_id(target),
            answers[0] if distractor is None else model.token_id(distractor, "distractor"),
        ]
        named = [f"“{as_word(model.vocabulary[word])}”" for word in words]
        if words[0] == words[1]:
            raise VisitError(
                f"B's answer and A's answer are the same word, {named[0]}: there is no way from one to the other. Name "
                "B's answer as target and A's as distractor."
            )
        question = ask(model, a, -1, *words)
        m_a, m_b = answer_gap(question, states).tolist()
    if not abs(m_b - m_a) >= LEAST_GAP:
        raise VisitError(
            f"Between {named[0]} and {named[1]} the two runs differ by {number(abs(m_b - m_a))} logits; an effect is a "
            f"share of that, and needs {LEAST_GAP} at least. Name another target (B's answer) and distractor (A's)."
        )
    return TwoRuns(question, b, partners, first, m_a, m_b)


def _unedited_runs(model: Model, *prompts: Any) -> list[Activations]:
    parts = ("resid_pre", "resid_post", "attn_out", "mlp_out", "z", "k", "v", "rotary")
    asked = [p for p in prompts if not isinstance(p, Activations)]
    made = iter(capture_many(model, asked, parts) if asked else ())
    found = [p if isinstance(p, Activations) else next(made) for p in prompts]
    for record in found:
        check_pass(model, record)
        if record.edits:
            raise VisitError("Patching is between two runs without edits; one of these records was made with some.")
        for quantity in ("stream", "attn_out", "mlp_out", "z"):
            in_record(model, record, quantity, 0)
    return found


def _first_difference(model: Model, a: Activations, b: Activations) -> int:
    """The first position that another token stands at, or that a rotation of the prompt's length turns otherwise."""
    if grows(model) and len(a.tokens) != len(b.tokens):
        return 0
    shorter = min(len(a.tokens), len(b.tokens))
    return next((i for i in range(shorter) if a.token_ids[i] != b.token_ids[i]), shorter)


def answer_gap(question: Question, states: Float[Tensor, "run d_model"]) -> Tensor:
    """m of each last state: the target's logit minus the distractor's, before a soft-cap."""
    model, bias = question.model, question.model.b_U
    m = final_norm(model, states) @ question.word
    return m if bias is None else m + (bias[question.target] - bias[question.distractor]).to(m)
