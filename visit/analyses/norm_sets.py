"""Norms over a prompt set: sums that grow with neither prompts nor time, and the paper's figure and tables from them.

Two readings of "the mean" (method section 6): "probabilities", the mean over prompts of what each one reads; "vector",
what the mean vector reads. The paper's tables use the second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from visit.activations.forward import capture_many
from visit.activations.record import Activations
from visit.analyses.norms import (
    NORMS,
    NormSite,
    norm_module,
    norm_sites,
    normed,
    parts_for,
    probs_of,
    ranks_of,
    state_before,
    with_final,
    word_table,
)
from visit.errors import VisitError
from visit.exact.question import counted
from visit.models.model import Model
from visit.runs.prompts import Row
from visit.runs.sums import SumsJob, summed

MEANS_OF = ("probabilities", "vector")
READ_TOGETHER = 64  # prompts read together
WIDE_BYTES = 32 << 20  # of probabilities held at once


@dataclass(frozen=True, eq=False)
class ShiftSums:
    """Sums over `count` prompts for every norm of `sites`; side 0 = before the norm, 1 = after it. All in float64.

    `visit.runs.sums.merge` gives those of two sets of prompts together. `final_norm`: as in `token_shift`.
    """

    sites: tuple[NormSite, ...]
    final_norm: bool | None
    count: int = summed()
    probs: Float[Tensor, "side site d_vocab"] = summed()
    vectors: Float[Tensor, "side site d_model"] = summed()
    squares: Float[Tensor, "site d_model"] = summed()  # of the vectors before the norm

    def place(self, layer: int | None, norm: str) -> int:
        """Where a norm stands in the sums; a `VisitError` where it was not asked for, or no prompt was added."""
        site = (None if norm == "final" else layer, norm)
        if site not in self.sites:
            raise VisitError(f"These sums hold no {norm} of layer {layer}. Sum again with it among layers and norms.")
        if not self.count:
            raise VisitError("No prompt was added to these sums. Give at least one.")
        return self.sites.index(site)


def shift_sums(
    model: Model, records: Iterable[Activations], layers: Iterable[int] | None = None, norms: Sequence[str] = NORMS,
    final_norm: bool | None = None,
) -> ShiftSums:  # fmt: skip
    """Read every norm before and after, over records that kept one position each, and add up what is read.

    `records`: from `capture_many(model, prompts, parts=parts_for(norms), pos=-1)`; 64 are held at once, and never a
    probability per prompt and word of all of them. Raises `VisitError` for a layer or norm that the model does not
    have, or a record of several positions. Source: paper 5.2; the sums are ours.
    """
    rest = iter(records)

    def before(group: Sequence[Activations], site: NormSite) -> Tensor:
        if any(len(acts.positions) != 1 for acts in group):
            raise VisitError("Sums over prompts take one position of each. Capture with capture_many(…, pos=-1).")
        return torch.cat([state_before(model, acts, *site) for acts in group])

    groups = iter(lambda: list(islice(rest, READ_TOGETHER)), [])
    return _read_groups(model, tuple(norm_sites(model, layers, norms)), final_norm, groups, before)


def _read_groups(
    model: Model, sites: tuple[NormSite, ...], final_norm: bool | None, groups: Iterable[Any],
    before_of: Callable[[Any, NormSite], Tensor],
) -> ShiftSums:  # fmt: skip
    """`groups`: what is read together; `before_of`: the vectors that a group has before a norm."""
    wide: dict[str, Any] = {"dtype": torch.float64, "device": model.device}
    probs = torch.zeros(2, len(sites), model.d_vocab, **wide)
    vectors = torch.zeros(2, len(sites), model.d_model, **wide)
    squares, count = torch.zeros(len(sites), model.d_model, **wide), 0
    rows = max(1, WIDE_BYTES // (8 * model.d_vocab))  # whose probabilities are held at once
    with torch.no_grad():
        for group in groups:
            count += len(group)
            for i, site in enumerate(sites):
                before, final = before_of(group, site), with_final(site[1], final_norm)
                squares[i] += before.double().pow(2).sum(0)
                for side, x in enumerate((before, normed(model, *site, before))):
                    vectors[side, i] += x.double().sum(0)
                    for some in x.split(rows):
                        probs[side, i] += probs_of(model, some, final).sum(0, dtype=torch.float64)
    return ShiftSums(sites, final_norm, count, probs, vectors, squares)


def set_shift(
    model: Model, sums: ShiftSums, layer: int | None, norm: str = "ln1", mean: str = "probabilities"
) -> pd.DataFrame:
    """Every word before and after one norm, over the prompts: Figure 7 and, with `mean="vector"`, the tables' words.

    Columns: those of `token_shift` without the steps and the target: `id`, `token`, `before_prob`, `before_rank`,
    `after_prob`, `after_rank`, `delta`, `falls`, `rises`. `mean`: "probabilities" (mean over prompts of the
    probabilities) or "vector" (probabilities of the mean vector before, and of the mean vector after). Few rows:
    `visit.analyses.norms.extremes(table, k)`. Raises `VisitError` for a norm that is not in the sums, or another mean.
    """
    before, after = _mean_sides(model, sums, sums.place(layer, norm), norm, mean)
    return word_table(model, before, after, (ranks_of(before), ranks_of(after)))


def _mean_sides(model: Model, sums: ShiftSums, place: int, norm: str, mean: str) -> Tensor:
    if mean not in MEANS_OF:
        raise VisitError(f"mean must be one of {', '.join(MEANS_OF)}; got {mean!r}.")
    if mean == "probabilities":
        return sums.probs[:, place] / sums.count
    with torch.no_grad():
        x = (sums.vectors[:, place] / sums.count).to(model.wide)
        return probs_of(model, x, with_final(norm, sums.final_norm), torch.float64)


def control_sums(model: Model, sums: ShiftSums, layer: int | None, norm: str = "ln1", seed: int = 0) -> ShiftSums:
    """The control group of one norm: as many random vectors, normal, with the real ones' mean and sd per dimension.

    A `ShiftSums` of this one norm, read as the real one (`set_shift`). Same seed, same vectors. Source: paper 5.2.
    """
    place = sums.place(layer, norm)
    average = sums.vectors[0, place] / sums.count
    spread = (sums.squares[place] / sums.count - average.pow(2)).clamp_min(0).sqrt()
    generator = torch.Generator().manual_seed(seed)

    def draw() -> Iterator[Tensor]:
        for start in range(0, sums.count, READ_TOGETHER):
            shape = min(READ_TOGETHER, sums.count - start), model.d_model
            noise = torch.randn(shape, generator=generator, dtype=torch.float64).to(model.device)
            yield (average + spread * noise).to(model.dtype)

    return _read_groups(model, (sums.sites[place],), sums.final_norm, draw(), lambda drawn, _site: drawn)


def quarters(n_layers: int) -> list[int]:
    """The last layer of each quarter of the model: 5, 11, 17, 23 of 24."""
    return sorted({-(-n_layers * part // 4) - 1 for part in (1, 2, 3, 4)})


def top_words(
    model: Model, sums: ShiftSums, layer: int | None, norm: str = "ln1", mean: str = "vector", k: int = 10
) -> pd.DataFrame:
    """The paper's Tables 1, 2 and 4: the k most probable words before and after one norm, side by side.

    Columns: `place` (1 …), `before`, `before_prob`, `after`, `after_prob`. Arguments and errors as `set_shift`.
    """
    words = set_shift(model, sums, layer, norm, mean)
    table = pd.DataFrame({"place": range(1, counted(model, k) + 1)})
    for side in ("before", "after"):
        top = words.nsmallest(len(table), f"{side}_rank")
        table[side], table[f"{side}_prob"] = top["token"].tolist(), top[f"{side}_prob"].tolist()
    return table


def falling_words(
    model: Model, sums: ShiftSums, norm: str = "ln1", mean: str = "vector", k: int = 10,
    layers: Iterable[int | None] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """The paper's Tables 3, 5 and (sums with `final_norm=False`) 6: the k words that lose most, per layer.

    `layers`: None = the last of each quarter of the model; of the final norm `[None]`. Columns: `layer`,
    `place`, `id`, `token`, `before_prob`, `after_prob`, `delta`. Fewer rows where fewer words fall.
    """
    parts = []
    for layer in quarters(model.n_layers) if layers is None else layers:
        words = set_shift(model, sums, layer, norm, mean)
        words = words[words["delta"] < 0].nsmallest(counted(model, k), "falls")
        parts.append(words.assign(layer=layer, place=range(1, len(words) + 1)))
    columns = ["layer", "place", "id", "token", "before_prob", "after_prob", "delta"]
    return pd.concat(parts, ignore_index=True)[columns].astype({"layer": "Int64"})


def layer_words(
    model: Model, sums: ShiftSums, norm: str = "ln1", mean: str = "probabilities", k: int = 8
) -> pd.DataFrame:
    """The paper's Figures 21 (ln1) and 22 (ln2): before, after and difference per layer, of k words that fall or rise.

    The words are those whose largest |delta| over the layers is largest; each has a row at every layer. Columns:
    `layer`, `id`, `token`, `before_prob`, `after_prob`, `delta`.
    """
    norm_module(model, 0, norm)
    layers = [layer for layer, own in sums.sites if own == norm]
    if norm == "final" or not layers:
        raise VisitError(f"Words per layer need a block's norm at some layer in the sums; {norm!r} was asked for.")
    sides = torch.stack([_mean_sides(model, sums, sums.place(n, norm), norm, mean) for n in layers]).cpu()
    delta = sides[:, 1] - sides[:, 0]
    chosen = delta.abs().amax(0).topk(counted(model, k)).indices.tolist()
    rows = [
        (layer, word, model.vocabulary[word], float(both[0, word]), float(both[1, word]), float(change[word]))
        for layer, both, change in zip(layers, sides, delta, strict=True) for word in chosen
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["layer", "id", "token", "before_prob", "after_prob", "delta"])


# ---- the norms of a prompt set as a job of the worker ----------------------------------------------------------------
SHIFT_RUN = "layernorm 1"


def shift_job(
    model: Model, rows: Sequence[Row], norms: Sequence[str], final_norm: bool | None, pos: int = -1
) -> SumsJob:
    """Every norm before and after, at one position of every prompt, the last by default; its result are `ShiftSums`."""

    def read(batch: Sequence[Row]) -> ShiftSums:
        records = capture_many(model, [row.prompt for row in batch], parts=parts_for(norms), pos=pos)
        return shift_sums(model, records, norms=norms, final_norm=final_norm)

    return SumsJob(rows, read([]), read)
