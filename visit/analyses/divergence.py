"""Where two passes part: how far apart the stream reads after every block, at every aligned pair of positions."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from visit.activations.record import Activations
from visit.analyses.parting import MEASURES
from visit.analyses.token_alignment import Pairing
from visit.errors import VisitError
from visit.exact.decompose import needed
from visit.lenses.linear import Lens, checked, through
from visit.lenses.logit import TILE_BYTES, lens_logits, top_of
from visit.models.attention import soft_cap
from visit.models.model import Model

TOP = 50  # of the intersection score, as in the paper
SAME = 1e-5  # of the longer state's length: what is closer than this is rounding, and not read at all
ROGUE = 3.0  # standard deviations over the mean of all dimensions


@torch.no_grad()
def part(
    model_a: Model, a: Activations, model_b: Model, b: Activations, pairing: Pairing,
    pairs: slice = slice(None), k: int = TOP, lenses: tuple[Lens | None, Lens | None] = (None, None),
) -> pd.DataFrame:  # fmt: skip
    """How far two passes are apart after every block, at every pair of positions that stand for each other.

    Columns: `depth` (0 = what enters the first block, n = after n blocks), `pair` (its place in the alignment),
    `pos_a`, `pos_b`, `token_a`, `token_b`, `word_a`, `word_b` (top words), `js` (Jensen–Shannon divergence of the two
    lens distributions, bits, 0 to 1), `apart` (1 − I_k), `cosine` (1 − cos of the two states) and `cosine_centred`
    (the same without each layer's mean over both prompts and without its rogue dimensions, whose root mean square lies
    3 standard deviations above the others'; missing where fewer than four states are left to take a mean of).
    `lenses`: a fitted lens for A's model and for B's, through which their states are read; the cosines are of the
    states themselves. States that agree within rounding are not read: their distances are 0. Missing: `js` and `apart`
    where the vocabularies differ, the cosines where the widths do. Two models must have as many layers. Source: ours.
    """
    if model_a.n_layers != model_b.n_layers:
        raise VisitError(
            f"Where two runs part is shown block by block, so both models need as many layers; "
            f"{model_a.name} (A) has {model_a.n_layers}, {model_b.name} (B) {model_b.n_layers}."
        )
    both = [(n, p) for n, p in list(enumerate(pairing.pairs))[pairs] if p.a is not None and p.b is not None]
    at_a, at_b = [p.a for _, p in both], [p.b for _, p in both]
    depths = range(model_a.n_layers + 1)
    streams = [(_stream(model_a, a, depth), _stream(model_b, b, depth)) for depth in depths]
    # all depths are read together: a product of a few rows costs as much as one of a hundred
    x, y = (torch.cat([stream[side][at] for stream in streams]) for side, at in ((0, at_a), (1, at_b)))
    same = _same(x, y) if model_a is model_b else torch.zeros(len(x), dtype=torch.bool, device=x.device)
    x, y = _lens_inputs(model_a, model_b, x, y, len(both), lenses)
    read = _distances(model_a, model_b, x, y, k, same)
    rows = []
    for depth in depths:
        all_a, all_b = streams[depth]
        angles = _angles(all_a[at_a], all_b[at_b], all_a, all_b)
        for i, (n, p) in enumerate(both):
            row = {"depth": depth, "pair": n, "pos_a": p.a, "pos_b": p.b}
            row |= {name: values[depth * len(both) + i] for name, values in read.items()}
            rows.append(row | {name: values[i] for name, values in angles.items()})
    names = ["depth", "pair", "pos_a", "pos_b", "word_a", "word_b", *MEASURES]
    table = pd.DataFrame(rows, columns=names)
    table.insert(4, "token_a", [a.tokens[p] for p in table["pos_a"]])
    table.insert(5, "token_b", [b.tokens[p] for p in table["pos_b"]])
    return table


def _stream(model: Model, acts: Activations, depth: int) -> Tensor:
    """`[pos, d_model]`: the stream after `depth` blocks."""
    name, layer = ("resid_pre", 0) if depth == 0 else ("resid_post", depth - 1)
    return needed(acts, name)[layer].to(model.wide)


def _lens_inputs(
    model_a: Model, model_b: Model, x: Tensor, y: Tensor, pairs: int, lenses: tuple[Lens | None, Lens | None]
) -> list[Tensor]:
    """The states as the lenses are given them, `pairs` rows a depth."""
    found = []
    for model, rows, lens in ((model_a, x, lenses[0]), (model_b, y, lenses[1])):
        lens = checked(model, lens)
        sites = [("resid_pre", 0), *(("resid_post", layer) for layer in range(model.n_layers))]
        depths = rows.unflatten(0, (len(sites), pairs))
        found.append(torch.cat([through(lens, states, *site) for states, site in zip(depths, sites, strict=True)]))
    return found


def _distances(model_a: Model, model_b: Model, x: Tensor, y: Tensor, k: int, same: Tensor) -> dict[str, list[Any]]:
    """Divergence and intersection of what two sets of states read, row by row; `same` ones are read once."""
    words = [_words_of_states(model_a, x[same])] * 2
    js = apart = torch.zeros(int(same.sum()), dtype=torch.float64)
    x, y = x[~same], y[~same]
    if model_a.vocabulary == model_b.vocabulary:
        top_a, top_b, js_now = _read_both(model_a, model_b, x, y, min(k, model_a.d_vocab))
        shared = (top_a[:, :, None] == top_b[:, None, :]).any(-1).cpu().double().mean(-1)
        fresh = [[m.vocabulary[i] for i in top[:, 0].tolist()] for m, top in ((model_a, top_a), (model_b, top_b))]
        apart_now = 1 - shared
    else:
        fresh = [_words_of_states(model_a, x), _words_of_states(model_b, y)]
        js_now = apart_now = torch.full((len(x),), math.nan, dtype=torch.float64)
    order = torch.cat([same.nonzero()[:, 0], (~same).nonzero()[:, 0]]).argsort().tolist()
    columns = {
        "word_a": words[0] + fresh[0], "word_b": words[1] + fresh[1],
        "js": torch.cat([js, js_now.cpu()]).tolist(), "apart": torch.cat([apart, apart_now.cpu()]).tolist(),
    }  # fmt: skip
    return {name: [values[n] for n in order] for name, values in columns.items()}


def _words_of_states(model: Model, x: Tensor) -> list[str]:
    """The top word of every state."""
    return [model.vocabulary[i] for _, logits in lens_logits(model, x) for i in logits.argmax(-1).tolist()]


def _read_both(model_a: Model, model_b: Model, x: Tensor, y: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Top ids `[n, k]` of both sides and the Jensen–Shannon divergence `[n]` of their distributions, in bits."""
    tops: tuple[list[Tensor], list[Tensor]] = ([x.new_empty((0, k), dtype=torch.long)], [])
    tops[1].append(tops[0][0])
    found = [torch.zeros(0, dtype=torch.float64)]  # an Apple GPU has no float64
    tile = max(1, TILE_BYTES // (model_a.d_vocab * x.element_size()))
    for (_, p), (_, q) in zip(lens_logits(model_a, x), lens_logits(model_b, y), strict=True):
        for i in range(0, len(p), tile):  # a few rows at a time: what stays in the processor's cache is read only once
            left, right = p[i : i + tile], q[i : i + tile]
            tops[0].append(top_of(left, k)[1])
            tops[1].append(top_of(right, k)[1])
            found.append(divergence(_log_probs(model_a, left), _log_probs(model_b, right)).cpu().double())
    return torch.cat(tops[0]), torch.cat(tops[1]), torch.cat(found)


def _log_probs(model: Model, logits: Tensor) -> Tensor:
    return soft_cap(logits, model.logit_cap).log_softmax(-1)


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """Jensen–Shannon divergence of two sets of log-probabilities `[n, d_vocab]`, in bits, between 0 and 1."""
    middle = torch.logaddexp(p, q) - math.log(2)
    parts = (p.exp() * (p - middle)).nansum(-1) + (q.exp() * (q - middle)).nansum(-1)
    return (parts / (2 * math.log(2))).clamp(0, 1)


def _same(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).norm(dim=-1) <= SAME * torch.maximum(x.norm(dim=-1), y.norm(dim=-1))


def _angles(x: Tensor, y: Tensor, all_a: Tensor, all_b: Tensor) -> dict[str, list[float]]:
    """Cosine distances, plain and with the mean and the rogue dimensions of all states of this depth removed."""
    if x.shape[-1] != y.shape[-1]:
        missing = [math.nan] * len(x)
        return {"cosine": missing, "cosine_centred": missing}
    same = _same(x, y)
    plain = 1 - torch.cosine_similarity(x, y, dim=-1)
    # the first position is an attention sink of giant length in many models: it would be the mean
    rest = torch.cat([all_a[1:], all_b[1:]])
    if len(rest) < 4:
        centred = torch.full_like(plain, math.nan)
    else:
        size = rest.pow(2).mean(0).sqrt()
        calm = size <= size.mean() + ROGUE * size.std()
        middle = rest.mean(0)
        centred = 1 - torch.cosine_similarity((x - middle)[:, calm], (y - middle)[:, calm], dim=-1)
    return {
        "cosine": plain.masked_fill(same, 0.0).clamp(0, 2).tolist(),
        "cosine_centred": centred.masked_fill(same, 0.0).clamp(0, 2).tolist(),
    }
