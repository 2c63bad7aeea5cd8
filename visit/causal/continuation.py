"""How a text goes on, with parts of the model edited: greedily, word by word, and what the clean model thinks of it.

Every step runs the whole text again, so that an edit of an early position acts exactly as in a captured run; what the
edits are is settled once, on the prompt: "all" positions includes new ones, a position stays where it is in the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch

from visit.activations.edit_hooks import edit_hooks
from visit.activations.forward import applied
from visit.activations.record import Applied, Edit
from visit.errors import VisitError, check_kind, check_positive
from visit.models.model import Model, tokenize


@dataclass(frozen=True)
class Step:
    """One new token: where it stands in the text, its id, its probability in the edited run, whether it was forced."""

    pos: int
    token: int
    prob: float
    forced: bool = False


def continuation(
    model: Model,
    prompt: str | Sequence[int],
    tokens: int = 20,
    edits: Sequence[Edit | Applied] = (),
    force: Mapping[int, int | str] | None = None,
) -> pd.DataFrame:
    """Continue a text by the most probable word each time, with the edits in every run.

    `force`: position → the token that stands there instead (an id, or a string that is exactly one token); the first
    new position is the number of the prompt's tokens. Ends early where the model ends its text. Edits at "all"
    positions act at new ones, too (a record's values have none for these: they stay as they are; a mean over prompts
    takes that over all positions but 0).
    A row a new token: `pos`, `token`, `prob` (of the edited run), `prob_clean` (of the same token after the same text,
    without edits), `forced`. Raises `VisitError` for a text longer than the model reads, a position to force outside of
    the new ones, and edits that cannot be made. Source: ours.
    """
    ids = tokenize(model, prompt)
    found = list(writing_steps(model, ids, tokens, edits, force))
    clean = clean_probabilities(model, ids, [step.token for step in found])
    return pd.DataFrame(
        {
            "pos": [step.pos for step in found],
            "token": [model.vocabulary[step.token] for step in found],
            "prob": [step.prob for step in found],
            "prob_clean": clean,
            "forced": [step.forced for step in found],
        }
    )


def writing_steps(
    model: Model,
    prompt: str | Sequence[int],
    tokens: int = 20,
    edits: Sequence[Edit | Applied] = (),
    force: Mapping[int, int | str] | None = None,
) -> Iterator[Step]:
    """The new tokens of `continuation`, one by one as they are found, so that a caller can show them, or stop."""
    check_kind("tokens", tokens, int, "a whole number from 1")
    check_positive("tokens", tokens)
    ids = list(tokenize(model, prompt))
    first = len(ids)
    if first + tokens > model.max_tokens:
        raise VisitError(
            f"{model.name} reads at most {model.max_tokens} tokens; {first} of the prompt and {tokens} new ones are "
            f"more. Ask for at most {max(0, model.max_tokens - first)}."
        )
    forced = {int(pos): model.token_id(word, "forced word") for pos, word in (force or {}).items()}
    if wrong := [pos for pos in forced if not first <= pos < first + tokens]:
        raise VisitError(f"A word can be forced at the new positions {first} to {first + tokens - 1}; got {wrong[0]}.")
    made = applied(model, edits, ids)
    for _ in range(tokens):
        with model.lock, torch.no_grad(), edit_hooks(model, made, len(ids)):
            logits = model.hf(torch.tensor([ids], device=model.device), use_cache=False, logits_to_keep=_kept(model))
        last = logits.logits[0, -1].to(model.wide)
        token = forced.get(len(ids), int(last.argmax()))
        yield Step(len(ids), token, float(last.softmax(-1)[token]), len(ids) in forced)
        ids.append(token)
        if token in _end_tokens(model) and not any(pos >= len(ids) for pos in forced):
            return


def clean_probabilities(model: Model, prompt: str | Sequence[int], tokens: Sequence[int]) -> list[float]:
    """The probability of each of these tokens after the prompt and those before it, without edits: one run."""
    ids = tokenize(model, prompt)
    if not tokens:
        return []
    with model.lock, torch.no_grad():
        run = model.hf(torch.tensor([[*ids, *tokens[:-1]]], device=model.device), use_cache=False)
    probs = run.logits[0, len(ids) - 1 :].to(model.wide).softmax(-1)
    return [float(row[token]) for row, token in zip(probs, tokens, strict=True)]


def _kept(model: Model) -> int:
    """How many logits a step computes: without a final norm the stream is edited where the unembedding gets it."""
    return 0 if model.ln_final is None else 1


def _end_tokens(model: Model) -> set[int]:
    """The tokens that end a text."""
    config = getattr(model.hf, "generation_config", None)
    ends = getattr(config, "eos_token_id", None)
    ends = model.hf.config.eos_token_id if ends is None else ends
    return set() if ends is None else set(ends) if isinstance(ends, list | tuple) else {int(ends)}
