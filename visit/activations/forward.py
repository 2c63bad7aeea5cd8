"""The forward pass, captured: one prompt with its edits, or many prompts in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from visit.activations.edit_hooks import edit_hooks, with_counts
from visit.activations.edits import resolved
from visit.activations.hooks import Recorder
from visit.activations.record import PARTS, Activations, Applied, Edit
from visit.errors import VisitError
from visit.models.attention import grows
from visit.models.model import Model, tokenize

TOKENS_PER_BATCH = 2048  # of `capture_many`: past this, larger batches gain no speed on two cores


def capture(
    model: Model, prompt: str | Sequence[int], parts: Sequence[str] | None = None, edits: Sequence[Edit | Applied] = ()
) -> Activations:
    """Run the model once on `prompt` (a text, token ids, or `chat_prompt`'s) and keep what every step computed.

    `parts`: names of the quantities to keep (None = all); `edits`: interventions that hold for this run alone, each at
    its own positions; the record is that of the edited run, and says which they were.
    The logits are those of the plain forward pass, bit for bit. Shapes: `Activations`. Raises `VisitError` for an
    empty prompt, one longer than the model's window, unknown parts, or edits that cannot be made (`Edit`).
    Source: method section 1; edits: causes, section 12.
    """
    ids = tokenize(model, prompt)
    recorder, made = Recorder(model, _known_parts(parts)), applied(model, edits, ids)
    with model.lock, edit_hooks(model, made, len(ids)) as counts, recorder.hooks():
        recorder.run(torch.tensor([ids], device=model.device))
    return recorder.record(0, ids, prompt, with_counts(made, counts))


def applied(model: Model, edits: Iterable[Edit | Applied], ids: Sequence[int]) -> tuple[Applied, ...]:
    """Edits checked against a model and a prompt, their sources turned into numbers (`edits.resolved`)."""
    return resolved(model, edits, ids, capture_many)


def capture_many(
    model: Model,
    prompts: Sequence[str | Sequence[int]],
    parts: Sequence[str] | None = None,
    pos: int | None = None,
    batch: int | None = None,
) -> Iterator[Activations]:
    """Run many prompts in batches and yield one record a prompt, in their order.

    Prompts are padded on the right and neither mask nor position ids are passed: a causal model cannot see what
    stands right of a token, so the padding changes no number (equal to single runs within 1e-5 in float32).
    `pos`: keep this position only (the axis `pos` has length 1, and so has `query`); None keeps all of them.
    `batch`: prompts per batch; None: as many as give about 2,048 tokens. The model's lock is free between batches.
    """
    wanted = _known_parts(parts)
    if batch is not None and batch < 1:
        raise VisitError(f"A batch holds at least one prompt; got {batch}.")
    ids = [tokenize(model, p) for p in prompts]
    start, equal = 0, grows(model)
    while start < len(ids):
        left = ids[start : start + batch] if batch else ids[start:]
        size = _fit(left, equal) if equal or not batch else batch
        group = ids[start : start + size]
        kept = None if pos is None else torch.tensor([_at(pos, i) for i in group], device=model.device)
        recorder = Recorder(model, wanted, kept)
        width = max(map(len, group))
        # a prompt's own last token fills it up: at the padding token transformers would warn of a missing mask
        padded = torch.tensor([(*i, *i[-1:] * (width - len(i))) for i in group], device=model.device)
        with model.lock, recorder.hooks():
            recorder.run(padded)
        for row, own in enumerate(group):
            yield recorder.record(row, own, prompts[start + row])
        start += size


def plain_logits(model: Model, ids: Sequence[int], edits: Sequence[Applied] = ()) -> Float[Tensor, "pos d_vocab"]:
    """The logits of a forward pass with nothing attached but `edits`: what identity 1 compares with."""
    with model.lock, torch.no_grad(), edit_hooks(model, edits, len(ids)):
        return model.hf(torch.tensor([list(ids)], device=model.device), use_cache=False).logits[0]


def _at(pos: int, ids: Sequence[int]) -> int:
    if not -len(ids) <= pos < len(ids):
        raise VisitError(f"Position {pos} does not exist in a prompt of {len(ids)} tokens.")
    return pos % len(ids)


def _fit(ids: Sequence[Sequence[int]], equal: bool) -> int:
    """How many of the next prompts share a batch: padded, they hold about TOKENS_PER_BATCH tokens.

    `equal`: none is padded, since the rotation of this model depends on the longest prompt of a batch.
    """
    width = 0
    for n, own in enumerate(ids, start=1):
        width = max(width, len(own))
        if n * width > TOKENS_PER_BATCH or (equal and len(own) != len(ids[0])):
            return max(1, n - 1)
    return len(ids)


def _known_parts(parts: Sequence[str] | None) -> frozenset[str]:
    wanted = frozenset(PARTS if parts is None else parts)
    unknown = wanted - frozenset(PARTS)
    if unknown:
        raise VisitError(f"parts must be among {', '.join(PARTS)}; got {', '.join(sorted(unknown))}.")
    return wanted
