"""Neurons over a prompt set: how often each is among its layer's most active, and what kind of vector it writes.

The paper's regularization neurons (5.3) are those that are nearly always active: long, of high entropy, reading as
function words, with a few outlier weights in the stream's rogue dimensions. Every part of that claim is a column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Literal

import pandas as pd
from torch import Tensor

from visit.activations.forward import capture_many
from visit.analyses.divergence import ROGUE
from visit.analyses.function_words import function_words as listed_words
from visit.analyses.function_words import is_function_word
from visit.analyses.neuron_sums import PARTS, NeuronSums, added, empty_sums, state_of, sums_of
from visit.errors import VisitError
from visit.lenses.weights import StaticIndex, reading, static_index
from visit.models.model import Model

Measure = Literal["activation", "weighted"]
MEASURES: dict[str, str] = {
    "activation": "|a|, the activation (the paper's text)",
    "weighted": "|a| · ‖W_out‖, what it adds (the authors' code)",
}
SHARE, THRESHOLD = 0.0244, 0.85  # the paper: 100 of 4,096 neurons, in more than 85 % of the prompts
OUTLIER = 3.0  # standard deviations of a neuron's own weights
WORDS = 10  # of each neuron in the table, and those whose share of function words is taken
UPDATE = 1 << 22  # activations looked at together


def neuron_statistics(
    model: Model,
    prompts: Sequence[str | Sequence[int]],
    measure: Measure = "activation",
    share: float = SHARE,
    threshold: float = THRESHOLD,
    pos: int = -1,
    function_words: Iterable[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Every MLP neuron over a prompt set: a row per layer and neuron.

    `measure`: "activation" (|a_n|, the paper) or "weighted" (|a_n| · ‖W_out[n]‖, the authors' code); `share`: of a
    layer's neurons that count as its most active; `pos`: the position looked at in every prompt; `progress(done,
    total)` in prompts; `function_words`: a list of your own (default: the shipped one). Columns: see
    `statistics_table`. The first call for a model computes its static index. Raises `VisitError` for no prompts, an
    unknown measure, or a share or threshold out of range. Source: paper 5.3.
    """
    _check(measure, threshold)
    sums = neuron_sums(model, prompts, share, pos, progress)
    return statistics_table(model, sums, static_index(model), measure, threshold, function_words)


class NeuronRun:
    """The statistics as a job of `visit.runs.worker`: in batches, cancelled, resumed, looked at while it runs."""

    def __init__(self, model: Model, rows: Sequence[Any], share: float = SHARE, pos: int = -1) -> None:
        """`rows`: anything with a `prompt` (`visit.runs.promptset.PromptSet.rows`)."""
        self.model, self.items, self.share, self.pos = model, rows, share, pos
        self.sums = empty_sums(model, share)

    def update(self, rows: Sequence[Any]) -> None:
        """Take in the next prompts; their numbers go on where the last ones ended."""
        records = capture_many(self.model, [row.prompt for row in rows], PARTS, self.pos)
        while batch := list(islice(records, _batch(self.model))):
            self.sums = added(self.model, self.sums, batch)

    def snapshot(self) -> NeuronSums:
        """The sums so far: a frozen record."""
        return self.sums

    def state(self) -> dict[str, Any]:
        return state_of(self.sums)

    def load(self, state: dict[str, Any]) -> None:
        self.sums = sums_of(self.model, self.share, state)


def _batch(model: Model) -> int:
    return max(1, UPDATE // (model.n_layers * model.d_mlp))


def neuron_sums(
    model: Model, prompts: Sequence[str | Sequence[int]], share: float = SHARE, pos: int = -1,
    progress: Callable[[int, int], None] | None = None,
) -> NeuronSums:  # fmt: skip
    """Run a prompt set and keep the running sums of every neuron; memory does not grow with the prompts.

    Both measures are counted at once, so that measure and threshold can be changed without another run.
    """
    if isinstance(prompts, str) or not len(prompts):
        raise VisitError("Statistics need a list of at least one prompt.")
    sums = empty_sums(model, share)
    records = capture_many(model, prompts, PARTS, pos)
    while batch := list(islice(records, _batch(model))):
        sums = added(model, sums, batch)
        if progress is not None:
            progress(sums.prompts, len(prompts))
    return sums


def statistics_table(
    model: Model, sums: NeuronSums, index: StaticIndex, measure: Measure = "activation",
    threshold: float = THRESHOLD, function_words: Iterable[str] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """The sums as a row per layer and neuron.

    Columns: `layer`, `neuron`, `freq` (share of the prompts in which it is among its layer's most active),
    `is_regularization` (freq > threshold), `mean`, `std`, `max`, `min` of a_n; of W_out[n]: `norm`, `entropy` (bits),
    `norm_percentile`, `entropy_percentile` (among its layer's, 0 to 100), `tokens`, `negated_tokens` (what it writes
    with a positive and with a negative coefficient), `used_tokens` (those of the sign that it is used with, its mean
    activation's), `function_share` (of these, punctuation counted among the function words),
    `negated_function_share` (of the other sign's: what it pushes away),
    `outlier_count`, `outlier_dims` (|w| > 3 standard deviations of its own weights, largest first), `rogue_dims` (those
    of them that are rogue in the stream after this layer); `example_prompts` (numbers, largest |a_n| first),
    `example_values`. Source: paper 5.3; percentiles and examples ours.
    """
    _check(measure, threshold)
    if not sums.prompts:
        raise VisitError("Statistics need at least one prompt; none was run.")
    words = listed_words() if function_words is None else frozenset(w.strip().lower() for w in function_words)
    place = list(MEASURES).index(measure)
    layers = [_layer(model, sums, index, layer, place, words) for layer in range(model.n_layers)]
    table = pd.concat(layers, ignore_index=True)
    table.insert(3, "is_regularization", table["freq"] > threshold)
    return table


def _layer(
    model: Model, sums: NeuronSums, index: StaticIndex, layer: int, measure: int, words: frozenset[str]
) -> pd.DataFrame:
    read = reading(index, "W_out", layer, range(model.d_mlp), WORDS)
    mean = sums.mean[layer]
    sides = [read["tokens"], read["negated_tokens"]]
    up = pd.Series((mean >= 0).tolist())
    used, other = sides[0].where(up, sides[1]), sides[1].where(up, sides[0])
    rogue = set(rogue_dims(sums, layer))
    outliers = outlier_dims(model.W_out(layer))
    examples = [[n for n in row if n >= 0] for row in sums.example_prompts[layer].tolist()]
    values = sums.example_values[layer].tolist()
    return pd.DataFrame({
        "layer": layer, "neuron": range(model.d_mlp), "freq": (sums.counts[measure, layer] / sums.prompts).tolist(),
        "mean": mean.tolist(), "std": (sums.spread[layer] / sums.prompts).sqrt().tolist(),
        "max": sums.largest[layer].tolist(), "min": sums.smallest[layer].tolist(),
        "norm": read["norm"], "entropy": read["entropy"],
        "norm_percentile": percentiles(read["norm"]), "entropy_percentile": percentiles(read["entropy"]),
        "tokens": read["tokens"], "negated_tokens": read["negated_tokens"], "used_tokens": used,
        "function_share": [function_share(row, words) for row in used],
        "negated_function_share": [function_share(row, words) for row in other],
        "outlier_count": [len(dims) for dims in outliers], "outlier_dims": outliers,
        "rogue_dims": [[d for d in dims if d in rogue] for dims in outliers],
        "example_prompts": examples, "example_values": [v[: len(n)] for v, n in zip(values, examples, strict=True)],
    })  # fmt: skip


def percentiles(values: pd.Series) -> pd.Series:
    """The share of the other values that each is above, 0 to 100; equal ones count half."""
    return 100 * (values.rank(method="average") - 1) / max(1, len(values) - 1)


def outlier_dims(rows: Tensor) -> list[list[int]]:
    """Of every vector the dimensions whose |w| exceeds 3 standard deviations of its own weights, largest first."""
    far = rows.abs() > OUTLIER * rows.std(dim=1, keepdim=True, correction=0)
    found: list[list[int]] = [[] for _ in range(len(rows))]
    places = far.nonzero()
    order = rows[far].abs().argsort(descending=True)
    for n, dim in places[order].tolist():
        found[n].append(dim)
    return found


def rogue_dims(sums: NeuronSums, layer: int) -> list[int]:
    """The stream's rogue dimensions after a layer, largest first, over the prompts' position.

    Their root mean square lies more than 3 standard deviations above the mean of all dimensions (as in
    `visit.analyses.divergence`). Source: the paper's 5.3, after Timkey and van Schijndel 2021.
    """
    size = (sums.stream[layer] / max(1, sums.prompts)).sqrt()
    rogue = (size > size.mean() + ROGUE * size.std()).nonzero()[:, 0]
    return rogue[size[rogue].argsort(descending=True)].tolist()


def function_share(tokens: list[str], words: frozenset[str]) -> float:
    """The share of tokens that are function words or punctuation, spaces and capitals aside."""
    return sum(is_function_word(t, words) for t in tokens) / max(1, len(tokens))


def _check(measure: Any, threshold: float) -> None:
    if measure not in MEASURES:
        raise VisitError(f"measure must be one of {', '.join(MEASURES)}; {measure!r} came.")
    if not 0 <= threshold <= 1:
        raise VisitError(f"threshold must be from 0 to 1 (the paper: 0.85); {threshold} came.")
