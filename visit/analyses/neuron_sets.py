"""Neurons over a prompt set: how often each is among its layer's most active, and what kind of vector it writes.

The paper's regularization neurons (5.3) are those that are nearly always active: long, of high entropy, reading as
function words, with a few outlier weights in the stream's rogue dimensions. Every part of that claim is a column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from typing import Any, Literal

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from visit.activations.forward import capture_many
from visit.activations.record import Activations
from visit.analyses.divergence import ROGUE
from visit.analyses.function_words import function_words as listed_words
from visit.analyses.function_words import is_function_word
from visit.errors import VisitError
from visit.exact.decompose import needed
from visit.lenses.weights import StaticIndex, row_words, static_index
from visit.models.model import Model
from visit.runs.job import finish
from visit.runs.prompts import Row, as_rows
from visit.runs.sums import SumsJob, maximum, merge, minimum, summed, together

# ---- what is kept of every neuron -----------------------------------------------------------------------------------
NEURON_PARTS = ("neurons", "resid_post")  # what a pass must capture
EXAMPLES = 5  # prompts kept per neuron
BINS = 64  # of a neuron's histogram, half of them below zero
_SMALLEST = -40  # the narrowest histogram reaches ±2 ** this


def _merged_moments(a: NeuronSums, b: NeuronSums) -> dict[str, Tensor]:
    """Mean and squared distances from it, of both sets of prompts (Chan et al. 1979)."""
    n, apart = max(1, a.prompts + b.prompts), b.mean - a.mean
    return {
        "mean": a.mean + apart * (b.prompts / n),
        "spread": a.spread + b.spread + apart.pow(2) * (a.prompts * b.prompts / n),
    }


def _merged_histograms(a: NeuronSums, b: NeuronSums) -> dict[str, Tensor]:
    """Both with bins as wide as the wider of the two."""
    reach = torch.maximum(a.reach, b.reach)
    return {"reach": reach, "bins": _widened(a.bins, a.reach, reach) + _widened(b.bins, b.reach, reach)}


def _widened(bins: Tensor, reach: Tensor, wanted: Tensor) -> Tensor:
    """The histograms with wider bins: bin i of a reach holds bins 2i and 2i + 1 of half that reach, zero between."""
    steps = (wanted - reach).clamp_max(BINS.bit_length())  # further on everything lies in the two middle bins
    if not bool(steps.any()):
        return bins
    place = torch.arange(BINS, device=bins.device) - BINS // 2
    target = (place >> steps[..., None].long()) + BINS // 2
    return torch.zeros_like(bins).scatter_add_(-1, target, bins)


def _merged_examples(a: NeuronSums, b: NeuronSums) -> dict[str, Tensor]:
    """The top examples of both, of equal ones the earlier; sorted only where b has one that belongs to them."""
    values, prompts = a.example_values.clone(), a.example_prompts.clone()
    change = b.example_values[..., 0].abs() > a.example_values[..., -1].abs().nan_to_num(-1.0)
    later = b.example_prompts[change]
    both = torch.cat([values[change], b.example_values[change]], dim=-1)
    names = torch.cat([prompts[change], later.where(later < 0, later + a.prompts)], dim=-1)
    order = both.abs().nan_to_num(-1.0).sort(dim=-1, descending=True, stable=True).indices[..., :EXAMPLES]
    values[change], prompts[change] = both.gather(-1, order), names.gather(-1, order)
    return {"example_values": values, "example_prompts": prompts}


@dataclass(frozen=True, eq=False)
class NeuronSums:
    """What is known of every neuron after `prompts` prompts (`visit.runs.sums`).

    `counts[0]` counts by |a_n|, `counts[1]` by |a_n| · ‖W_out[n]‖. The histogram's bins are 2 ** (reach − 5) wide and
    begin at −2 ** reach: it doubles its width whenever a value does not fit, which loses no count.
    """

    share: float
    prompts: int = summed()
    counts: Int[Tensor, "measure layer neuron"] = summed()
    mean: Float[Tensor, "layer neuron"] = together(_merged_moments)
    spread: Float[Tensor, "layer neuron"] = together(_merged_moments)  # sum of squared distances from the mean
    largest: Float[Tensor, "layer neuron"] = maximum()
    smallest: Float[Tensor, "layer neuron"] = minimum()
    reach: Int[Tensor, "layer neuron"] = together(_merged_histograms)
    bins: Int[Tensor, "layer neuron bin"] = together(_merged_histograms)
    example_values: Float[Tensor, "layer neuron example"] = together(
        _merged_examples
    )  # largest |a_n| first; missing: NaN
    example_prompts: Int[Tensor, "layer neuron example"] = together(_merged_examples)  # counted from 0; −1: missing
    stream: Float[Tensor, "layer d_model"] = summed()  # sum of squares of resid_post

    def edges(self, layer: int, neuron: int) -> list[float]:
        """The BINS + 1 borders of a neuron's histogram."""
        width = 2.0 ** (int(self.reach[layer, neuron]) + 1) / BINS
        return [width * (i - BINS // 2) for i in range(BINS + 1)]


def empty_sums(model: Model, share: float) -> NeuronSums:
    """The record of no prompt. `share`: of a layer's neurons that count as its top, in (0, 1]."""
    if not 0 < share <= 1:
        raise VisitError(f"share must be above 0 and at most 1 (the paper: 0.0244); got {share}.")
    shape, where = (model.n_layers, model.d_mlp), model.device
    zeros = torch.zeros(shape, dtype=torch.float64, device=where)
    return NeuronSums(
        share=share, prompts=0, counts=torch.zeros((2, *shape), dtype=torch.int64, device=where),
        mean=zeros, spread=zeros, largest=zeros - torch.inf, smallest=zeros + torch.inf,
        reach=torch.full(shape, _SMALLEST, dtype=torch.int32, device=where),
        bins=torch.zeros((*shape, BINS), dtype=torch.int32, device=where),
        example_values=zeros[..., None].repeat(1, 1, EXAMPLES) + torch.nan,
        example_prompts=torch.full((*shape, EXAMPLES), -1, dtype=torch.int64, device=where),
        stream=torch.zeros((model.n_layers, model.d_model), dtype=torch.float64, device=where),
    )  # fmt: skip


# ---- from a batch of prompts to its sums -----------------------------------------------------------------------------
@torch.no_grad()
def batch_sums(model: Model, records: Sequence[Activations], share: float) -> NeuronSums:
    """The sums of some prompts alone. `records`: captured with `NEURON_PARTS` at one position each."""
    if not records:
        return empty_sums(model, share)
    wrong = next((r for r in records if len(r.positions) != 1), None)
    if wrong is not None:
        raise VisitError(f"Sums take one position a prompt; got {wrong.prompt!r} with {len(wrong.positions)}.")
    a = torch.stack([needed(r, "neurons")[:, 0] for r in records])
    broken = [r.prompt for r, fine in zip(records, a.isfinite().flatten(1).all(1).tolist(), strict=True) if not fine]
    if broken:
        raise VisitError(f"{model.name} computes no numbers (NaN or infinite) for {broken[0]!r}. Leave it out.")
    a = a.to(model.wide)
    mean, size = a.mean(0, dtype=torch.float64), a.abs()
    farthest = size.amax(0)
    reach = farthest.frexp().exponent.clamp_min(_SMALLEST).masked_fill(farthest == 0, _SMALLEST)  # 2 ** reach > |a|
    order = _first(size.clone())
    missing = max(0, EXAMPLES - len(a))
    return NeuronSums(
        share=share, prompts=len(a), counts=_counts(model, size, share), mean=mean,
        spread=(a.double() - mean).pow(2).sum(0), largest=a.amax(0).double(), smallest=a.amin(0).double(),
        reach=reach, bins=_histogram(a, reach),
        example_values=torch.nn.functional.pad(
            a.gather(0, order).double().movedim(0, -1), (0, missing), value=torch.nan),
        example_prompts=torch.nn.functional.pad(order.movedim(0, -1), (0, missing), value=-1),
        stream=torch.stack([needed(r, "resid_post")[:, 0] for r in records]).double().pow(2).sum(0),
    )  # fmt: skip


def _first(size: Tensor) -> Int[Tensor, "example layer neuron"]:
    """Places of the largest, in order, of equal ones the earliest. Five passes are faster than one sorting."""
    found = []
    for _ in range(min(EXAMPLES, len(size))):
        found.append(size.argmax(0))
        size.scatter_(0, found[-1][None], -1.0)
    return torch.stack(found)


def _counts(model: Model, size: Tensor, share: float) -> Int[Tensor, "measure layer neuron"]:
    """In how many prompts each neuron is among the top of its layer, by |a_n| and by |a_n| · ‖W_out[n]‖."""
    k = max(1, round(share * model.d_mlp))  # of 4,096 neurons 2.44 % are 100
    found = size.new_zeros((2, *size.shape[1:]), dtype=torch.int64)
    for measure, weight in enumerate((None, torch.stack(model.out_row_norms))):
        measured = size if weight is None else size * weight
        top = measured.topk(k, dim=-1, sorted=False).indices
        found[measure] = torch.zeros_like(size, dtype=torch.bool).scatter_(-1, top, True).sum(0)
    return found


def _histogram(a: Tensor, reach: Tensor) -> Int[Tensor, "layer neuron bin"]:
    width = torch.exp2(reach.double() + 1) / BINS
    place = (a.double() / width).floor().long() + BINS // 2
    flat = (place + torch.arange(reach.numel(), device=a.device).view(reach.shape) * BINS).flatten()
    return torch.bincount(flat, minlength=reach.numel() * BINS).view(*reach.shape, BINS).int()


Measure = Literal["activation", "weighted"]
ACTIVITIES: dict[str, str] = {
    "activation": "|a|, the activation (the paper's text)",
    "weighted": "|a| · ‖W_out‖, what it adds (the authors' code)",
}
SHARE, THRESHOLD = 0.0244, 0.85  # the paper: 100 of 4,096 neurons, in more than 85 % of the prompts
OUTLIER = 3.0  # standard deviations of a neuron's own weights
TABLE_WORDS = 10  # of each neuron in the table, and those whose share of function words is taken
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
    _check_choice(measure, threshold)
    sums = neuron_sums(model, prompts, share, pos, progress)
    return statistics_table(model, sums, static_index(model), measure, threshold, function_words)


NEURON_RUN = "neurons 1"


def neuron_job(model: Model, rows: Sequence[Row], share: float = SHARE, pos: int = -1) -> SumsJob:
    """The statistics as a job of `visit.runs.worker`; its result are `NeuronSums`.

    Both measures are counted at once, so that measure and threshold can be changed without another run.
    """
    size = max(1, UPDATE // (model.n_layers * model.d_mlp))

    def read(batch: Sequence[Row]) -> NeuronSums:
        records = capture_many(model, [row.prompt for row in batch], NEURON_PARTS, pos)
        parts = iter(lambda: list(islice(records, size)), [])
        return reduce(merge, (batch_sums(model, part, share) for part in parts))

    return SumsJob(rows, empty_sums(model, share), read)


def neuron_sums(
    model: Model, prompts: Sequence[str | Sequence[int]], share: float = SHARE, pos: int = -1,
    progress: Callable[[int, int], None] | None = None,
) -> NeuronSums:  # fmt: skip
    """Run a prompt set and keep the running sums of every neuron; memory does not grow with the prompts."""
    return finish(neuron_job(model, as_rows(prompts), share, pos), progress)


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
    _check_choice(measure, threshold)
    if not sums.prompts:
        raise VisitError("Statistics need at least one prompt; none was run.")
    words = listed_words() if function_words is None else frozenset(w.strip().lower() for w in function_words)
    place = list(ACTIVITIES).index(measure)
    layers = [_layer(model, sums, index, layer, place, words) for layer in range(model.n_layers)]
    table = pd.concat(layers, ignore_index=True)
    table.insert(3, "is_regularization", table["freq"] > threshold)
    return table


def _layer(
    model: Model, sums: NeuronSums, index: StaticIndex, layer: int, measure: int, words: frozenset[str]
) -> pd.DataFrame:
    read = row_words(index, "W_out", layer, range(model.d_mlp), TABLE_WORDS)
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


def _check_choice(measure: Any, threshold: float) -> None:
    if measure not in ACTIVITIES:
        raise VisitError(f"measure must be one of {', '.join(ACTIVITIES)}; got {measure!r}.")
    if not 0 <= threshold <= 1:
        raise VisitError(f"threshold must be from 0 to 1 (the paper: 0.85); got {threshold}.")
