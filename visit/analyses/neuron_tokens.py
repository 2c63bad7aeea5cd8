"""One neuron over every position of a prompt set: the tokens in context that activate it most, and its mean per token.

Nothing grows with the number of prompts: 20 contexts of either sign, and a row per token of the vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from visit.activations.forward import TOKENS_PER_BATCH, capture_many, tokenize
from visit.analyses.neurons import check_neuron
from visit.cache import State
from visit.errors import VisitError
from visit.models.model import Model

CONTEXTS = 20  # kept of either sign
WINDOW = 10  # tokens shown on either side of the one looked at
MEANS = 20  # tokens in the table of means
NUMBERS = 1 << 26  # activations of one batch, all layers together: a pass has no smaller unit than a model's all layers
SLACK = 0.99  # another batch rounds otherwise: a context met again must not fall below the number it came in with
PARTS = ("neurons",)

Kept = tuple[float, int, int, int]  # activation, prompt's number, position, prompts that begin in the same way


@dataclass(eq=False)
class Contexts:
    """The k contexts with the largest positive numbers, each once.

    A context is a token with all that stand before it, which is all that a causal model's activation depends on: where
    many prompts begin in the same way, their common beginning takes one place and not all of them. Its number is the
    same each time, so that one which has fallen below the k largest never comes back, and `times` counts exactly.
    """

    k: int

    def __post_init__(self) -> None:
        self.kept: dict[int, Kept] = {}  # in order: the largest first, of equal ones the earliest

    def add(self, number: int, ids: np.ndarray, x: np.ndarray) -> None:
        """Take in a prompt's numbers `[pos]`."""
        full = len(self.kept) == self.k
        least = SLACK * min(value for value, *_ in self.kept.values()) if full else 0.0
        places = np.flatnonzero((x > 0) & (x >= least))
        self._enter((_digest(ids[: pos + 1]), (float(x[pos]), number, int(pos), 1)) for pos in places)

    def merge(self, other: Contexts) -> None:
        self._enter(other.kept.items())

    def _enter(self, found: Iterable[tuple[int, Kept]]) -> None:
        for name, new in found:
            old = self.kept.get(name)
            first = new if old is None or new[1] < old[1] else old
            self.kept[name] = (*first[:3], new[3] + (old[3] if old else 0))
        order = sorted(self.kept.items(), key=lambda item: (-item[1][0], *item[1][1:3]))
        self.kept = dict(order[: self.k])

    def state(self) -> State:
        rows = list(self.kept.values())
        return {
            "names": np.array(list(self.kept), np.uint64), "values": np.array([row[0] for row in rows]),
            "places": np.array([row[1:] for row in rows], np.int64).reshape(-1, 3),
        }  # fmt: skip

    def load(self, state: State) -> None:
        rows = zip(state["values"].tolist(), state["places"].tolist(), strict=True)
        self.kept = {int(n): (value, *place) for n, (value, place) in zip(state["names"], rows, strict=True)}


def _digest(ids: np.ndarray) -> int:
    return int.from_bytes(hashlib.blake2b(ids.tobytes(), digest_size=8).digest())


@dataclass(eq=False)
class TokenTable:
    """How often each token of the vocabulary stood at a position, and the activations there."""

    d_vocab: int

    def __post_init__(self) -> None:
        self.count = np.zeros(self.d_vocab, np.int64)
        self.total = np.zeros(self.d_vocab)
        self.largest, self.smallest = self.total - np.inf, self.total + np.inf

    def add(self, ids: np.ndarray, x: np.ndarray) -> None:
        """Take in a prompt's token ids and activations `[pos]`."""
        np.add.at(self.count, ids, 1)
        np.add.at(self.total, ids, x)
        np.maximum.at(self.largest, ids, x)
        np.minimum.at(self.smallest, ids, x)

    def merge(self, other: TokenTable) -> None:
        self.count, self.total = self.count + other.count, self.total + other.total
        self.largest = np.maximum(self.largest, other.largest)
        self.smallest = np.minimum(self.smallest, other.smallest)

    def state(self) -> State:
        return {"count": self.count, "total": self.total, "largest": self.largest, "smallest": self.smallest}

    def load(self, state: State) -> None:
        if any(state[name].shape != (self.d_vocab,) for name in self.state()):
            raise VisitError("This state of a run is of another vocabulary. Start the run again.")
        for name in self.state():
            setattr(self, name, state[name])


class TokenSums:
    """What is known of one neuron after `prompts` prompts. Sums of two sets of prompts can be merged."""

    def __init__(self, d_vocab: int) -> None:
        self.prompts = 0
        self.positive, self.negative, self.tokens = Contexts(CONTEXTS), Contexts(CONTEXTS), TokenTable(d_vocab)

    @property
    def parts(self) -> dict[str, Any]:
        return {"positive": self.positive, "negative": self.negative, "tokens": self.tokens}

    @property
    def positions(self) -> int:
        """How many were looked at."""
        return int(self.tokens.count.sum())

    def add(self, number: int, ids: Sequence[int], x: np.ndarray) -> None:
        """Take in one prompt: its number in the set, its token ids, the neuron's activations `[pos]`."""
        names = np.asarray(ids, np.int64)
        self.positive.add(number, names, x)
        self.negative.add(number, names, -x)
        self.tokens.add(names, x)
        self.prompts += 1

    def merge(self, other: TokenSums) -> None:
        """Take in all prompts of another, whose numbers are of the same set."""
        for name, part in self.parts.items():
            part.merge(other.parts[name])
        self.prompts += other.prompts

    def state(self) -> State:
        return {"prompts": np.array(self.prompts), **_flat(self.parts)}

    def load(self, state: State) -> None:
        self.prompts = int(state["prompts"])
        _load(self.parts, state)


class TokensRun:
    """A neuron at every token of a prompt set, as a job of `visit.runs.worker`."""

    version = "neuron tokens 1"

    def __init__(self, model: Model, rows: Sequence[Any], layer: int, neuron: int) -> None:
        """`rows`: anything with a `prompt` (`visit.runs.prompts.PromptSet.rows`)."""
        check_neuron(model, layer, neuron)
        self.model, self.items, self.layer, self.neuron = model, rows, layer, neuron
        self.sums = TokenSums(model.d_vocab)

    def update(self, rows: Sequence[Any]) -> None:
        """Take in the next prompts; their numbers go on where the last ones ended."""
        for ids, x in activations(self.model, [row.prompt for row in rows], self.layer, self.neuron):
            self.sums.add(self.sums.prompts, ids, x)

    def snapshot(self) -> TokenSums:
        return deepcopy(self.sums)

    def state(self) -> State:
        return self.sums.state()

    def load(self, state: State) -> None:
        self.sums.load(state)


def activations(
    model: Model, prompts: Sequence[str | Sequence[int]], layer: int, neuron: int
) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """(token ids, the neuron's activations `[pos]`) of each prompt. Raises `VisitError` where they are no numbers."""
    ids = [tokenize(model, prompt) for prompt in prompts]
    tokens = min(TOKENS_PER_BATCH, NUMBERS // (model.n_layers * model.d_mlp))
    batch = max(1, tokens // max(map(len, ids), default=1))
    for acts, prompt in zip(capture_many(model, ids, PARTS, batch=batch), prompts, strict=True):
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
    check_neuron(model, layer, neuron)
    if isinstance(prompts, str) or not len(prompts):
        raise VisitError("A neuron's tokens need a list of at least one prompt.")
    sums = TokenSums(model.d_vocab)
    for number, (ids, x) in enumerate(activations(model, prompts, layer, neuron)):
        sums.add(number, ids, x)
        if progress is not None:
            progress(sums.prompts, len(prompts))
    return token_tables(model, sums, prompts)


def token_tables(model: Model, sums: TokenSums, prompts: Sequence[str | Sequence[int]]) -> dict[str, pd.DataFrame]:
    """The sums as tables `tokens` and `token_means`."""
    return {"tokens": token_contexts(model, sums, prompts), "token_means": token_means(model, sums)}


def token_contexts(
    model: Model, sums: TokenSums, prompts: Sequence[str | Sequence[int]], window: int = WINDOW
) -> pd.DataFrame:
    """The tokens that activate a neuron most, in context: the largest activations, then the most negative ones.

    Columns: `activation`, `before`, `token`, `after` (text, `window` tokens on either side at most), `number` (of the
    first prompt), `position`, `prompts` (how many begin in the same way up to this token: a causal model gives all of
    them this activation). `prompts`: the set that the sums were made from.
    """
    rows = []
    for sign, contexts in ((1, sums.positive), (-1, sums.negative)):
        for value, number, pos, times in contexts.kept.values():
            words = [model.vocabulary[i] for i in tokenize(model, prompts[number])]
            rows.append({
                "activation": sign * value, "before": "".join(words[max(0, pos - window) : pos]), "token": words[pos],
                "after": "".join(words[pos + 1 : pos + 1 + window]), "number": number, "position": pos,
                "prompts": times,
            })  # fmt: skip
    return pd.DataFrame(rows, columns=["activation", "before", "token", "after", "number", "position", "prompts"])


def token_means(model: Model, sums: TokenSums, top: int = MEANS) -> pd.DataFrame:
    """The tokens at which a neuron is most active on average, highest mean first, of equal means the lower id.

    Columns: `token_id`, `token`, `mean`, `count` (positions of the set that hold it), `max`, `min`.
    """
    table = sums.tokens
    seen = np.flatnonzero(table.count)
    means = table.total[seen] / table.count[seen]
    best = np.lexsort((seen, -means))[:top]
    ids = seen[best]
    return pd.DataFrame({
        "token_id": ids, "token": [model.vocabulary[i] for i in ids], "mean": means[best],
        "count": table.count[ids], "max": table.largest[ids], "min": table.smallest[ids],
    })  # fmt: skip


def _flat(parts: dict[str, Any]) -> State:
    """The state of several accumulators as one, names joined by a dot."""
    return {f"{name}.{key}": array for name, part in parts.items() for key, array in part.state().items()}


def _load(parts: dict[str, Any], state: State) -> None:
    """The way back of `_flat`: each accumulator loads what is its own."""
    for name, part in parts.items():
        part.load({key.removeprefix(f"{name}."): a for key, a in state.items() if key.startswith(f"{name}.")})
