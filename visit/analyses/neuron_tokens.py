"""One neuron over every position of a prompt set: the tokens in context that activate it most, and its mean per token.

Nothing grows with the number of prompts: 20 contexts of either sign, and a row per token of the vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from visit.activations.forward import TOKENS_PER_BATCH, capture_many
from visit.errors import VisitError
from visit.exact.question import check_neuron
from visit.models.model import Model, tokenize
from visit.runs.job import finish
from visit.runs.prompts import Row, as_rows
from visit.runs.sums import SumsJob, maximum, minimum, summed, together

CONTEXTS = 20  # kept of either sign
CONTEXT_WINDOW = 10  # tokens shown on either side of the one looked at
TOP_TOKENS = 20  # in the table of means
MOST_NUMBERS = 1 << 26  # activations of one batch, all layers: a pass has no smaller unit than a model's all layers

# A context is a token with all that stand before it, which is all that a causal model's activation depends on: where
# many prompts begin in the same way, their common beginning takes one place and not all of them. Its activation is the
# same each time, so that one which has fallen below the largest never comes back, and `times` counts exactly.
CONTEXT = np.dtype([("name", "u8"), ("value", "f8"), ("prompt", "i8"), ("position", "i8"), ("times", "i8")])


def top_contexts(found: np.ndarray) -> np.ndarray:
    """Each context once, by its first place, with the times of all; those of the largest values, the largest first."""
    _, first, inverse = np.unique(found["name"], return_index=True, return_inverse=True)
    once = found[first]
    once["times"] = np.bincount(inverse, found["times"]).astype(np.int64)
    return once[np.lexsort((once["position"], once["prompt"], -once["value"]))[:CONTEXTS]]


def _merged_contexts(a: TokenSums, b: TokenSums) -> dict[str, np.ndarray]:
    made = {}
    for name in ("positive", "negative"):
        later = getattr(b, name).copy()
        later["prompt"] += a.prompts
        made[name] = top_contexts(np.concatenate([getattr(a, name), later]))
    return made


@dataclass(frozen=True, eq=False)
class TokenSums:
    """What is known of one neuron after `prompts` prompts (`visit.runs.sums`): of every token, and the top contexts."""

    prompts: int = summed()
    count: Int[np.ndarray, " d_vocab"] = summed()  # positions that hold the token
    total: Float[np.ndarray, " d_vocab"] = summed()
    largest: Float[np.ndarray, " d_vocab"] = maximum()
    smallest: Float[np.ndarray, " d_vocab"] = minimum()
    positive: np.ndarray = together(_merged_contexts, grows=True)  # of dtype `CONTEXT`
    negative: np.ndarray = together(_merged_contexts, grows=True)  # their values turned round

    @property
    def positions(self) -> int:
        """How many were looked at."""
        return int(self.count.sum())


def token_sums(d_vocab: int, found: Sequence[tuple[Sequence[int], np.ndarray]]) -> TokenSums:
    """The sums of some prompts: of each its token ids and the neuron's activations `[pos]`."""
    ids = [np.asarray(own, np.int64) for own, _ in found]
    count, total = np.zeros(d_vocab, np.int64), np.zeros(d_vocab)
    largest, smallest = total - np.inf, total + np.inf
    tops = {sign: [np.zeros(0, CONTEXT)] for sign in (1, -1)}
    for number, (own, (_, x)) in enumerate(zip(ids, found, strict=True)):
        np.add.at(count, own, 1)
        np.add.at(total, own, x)
        np.maximum.at(largest, own, x)
        np.minimum.at(smallest, own, x)
        for sign, kept in tops.items():
            best = np.argsort(-sign * x, kind="stable")[:CONTEXTS]  # all contexts of one prompt are different
            best = best[sign * x[best] > 0]
            names = [hashlib.blake2b(own[: n + 1].tobytes(), digest_size=8).digest() for n in best]
            rows = [(int.from_bytes(name), sign * x[n], number, n, 1) for name, n in zip(names, best, strict=True)]
            kept.append(np.array(rows, CONTEXT))
    positive, negative = (top_contexts(np.concatenate(kept)) for kept in tops.values())
    return TokenSums(len(found), count, total, largest, smallest, positive, negative)


TOKENS_RUN = "neuron tokens 2"


def tokens_job(model: Model, rows: Sequence[Row], layer: int, neuron: int) -> SumsJob:
    """A neuron at every token of a prompt set, as a job of `visit.runs.worker`; its result are `TokenSums`."""
    check_neuron(model, layer, neuron)

    def read(batch: Sequence[Row]) -> TokenSums:
        return token_sums(model.d_vocab, list(activations(model, [row.prompt for row in batch], layer, neuron)))

    return SumsJob(rows, token_sums(model.d_vocab, []), read)


def activations(
    model: Model, prompts: Sequence[str | Sequence[int]], layer: int, neuron: int
) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """(token ids, the neuron's activations `[pos]`) of each prompt. Raises `VisitError` where they are no numbers."""
    ids = [tokenize(model, prompt) for prompt in prompts]
    tokens = min(TOKENS_PER_BATCH, MOST_NUMBERS // (model.n_layers * model.d_mlp))
    batch = max(1, tokens // max(map(len, ids), default=1))
    for acts, prompt in zip(capture_many(model, ids, ("neurons",), batch=batch), prompts, strict=True):
        assert acts.neurons is not None
        x = acts.neurons[layer, :, neuron].cpu().double().numpy()
        if not np.isfinite(x).all():
            raise VisitError(f"{model.name} computes no numbers (NaN or infinite) for {prompt!r}. Leave it out.")
        yield acts.token_ids, x


def neuron_tokens(
    model: Model, prompts: Sequence[str | Sequence[int]], layer: int, neuron: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """One MLP neuron at every position of a prompt set: tables `tokens` (in context) and `token_means`.

    Columns: `token_contexts`, `token_means`. `progress(done, total)` in prompts. Raises `VisitError` for no prompts or
    a neuron that does not exist. Source: ours.
    """
    return token_tables(model, finish(tokens_job(model, as_rows(prompts), layer, neuron), progress), prompts)


def token_tables(model: Model, sums: TokenSums, prompts: Sequence[str | Sequence[int]]) -> dict[str, pd.DataFrame]:
    """The sums as tables `tokens` and `token_means`."""
    return {"tokens": token_contexts(model, sums, prompts), "token_means": token_means(model, sums)}


def token_contexts(
    model: Model, sums: TokenSums, prompts: Sequence[str | Sequence[int]], window: int = CONTEXT_WINDOW
) -> pd.DataFrame:
    """The tokens that activate a neuron most, in context: the largest activations, then the most negative ones.

    Columns: `activation`, `before`, `token`, `after` (text, `window` tokens on either side at most), `number` (of the
    first prompt), `position`, `prompts` (how many begin in the same way up to this token: a causal model gives all of
    them this activation). `prompts`: the set that the sums were made from.
    """
    rows = []
    for sign, contexts in ((1, sums.positive), (-1, sums.negative)):
        for _, value, number, pos, times in contexts.tolist():
            words = [model.vocabulary[i] for i in tokenize(model, prompts[number])]
            rows.append({
                "activation": sign * value, "before": "".join(words[max(0, pos - window) : pos]), "token": words[pos],
                "after": "".join(words[pos + 1 : pos + 1 + window]), "number": number, "position": pos,
                "prompts": times,
            })  # fmt: skip
    return pd.DataFrame(rows, columns=["activation", "before", "token", "after", "number", "position", "prompts"])


def token_means(model: Model, sums: TokenSums, top: int = TOP_TOKENS) -> pd.DataFrame:
    """The tokens at which a neuron is most active on average, highest mean first, of equal means the lower id.

    Columns: `token_id`, `token`, `mean`, `count` (positions of the set that hold it), `max`, `min`.
    """
    seen = np.flatnonzero(sums.count)
    means = sums.total[seen] / sums.count[seen]
    best = np.lexsort((seen, -means))[:top]
    ids = seen[best]
    return pd.DataFrame({
        "token_id": ids, "token": [model.vocabulary[i] for i in ids], "mean": means[best],
        "count": sums.count[ids], "max": sums.largest[ids], "min": sums.smallest[ids],
    })  # fmt: skip
