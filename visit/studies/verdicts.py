"""What this run's numbers say about the paper's findings: each a claim, an answer, and a sentence with an interval.

An answer is "yes" where the whole 95 % bootstrap interval over prompts is on the claim's side, "no" where it is on the
other side, "undecided" where it is on both, or where there are too few prompts or layers to say. It names its size in
words of the k compared, for with many prompts the smallest difference is certain. Probabilities that no layer lifts out
of the noise are not ranked: what lies below a limit counts as equal.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from visit.studies.plan import OTHERS
from visit.studies.sums import StudySums
from visit.studies.tables import BAND
from visit.text.numbers import band, percent, short

FEW_PROMPTS, FEW_LAYERS = 5, 4  # with fewer nothing is decided
NEAR = 0.05  # above what random vectors score: what still counts as hardly any overlap
NEARLY_ALL = 0.9  # of the heads
CLEAR = 0.5  # a rank correlation from which a curve is said to rise; under 0 it does not, between nobody can say
NOISE = 10  # times 1/V: a probability below is what a lens reads of anything, and its ranks say nothing
_RULE = f"; a yes has all of it above {CLEAR}, a no below 0"
_NAMES = {"attn_out": "attn_out", "block": "the block's output", "final": "the final state"}
_WORDS = {True: "yes", False: "no", None: "undecided"}

Draws = Float[np.ndarray, " draw"]  # a number: of the prompts as they are, then of every resampled set
Curves = Float[np.ndarray, "draw layer"]


@dataclass(frozen=True)
class Verdict:
    """One finding of the paper, looked for in this run. `holds`: None = undecided.

    `sentence`: the claim, the answer and its size; `numbers`: what it rests on (estimate, interval, rule), maybe empty.
    """

    claim: str
    holds: bool | None
    sentence: str
    numbers: str = ""

    @property
    def whole(self) -> str:
        """Sentence and numbers as one text."""
        return f"{self.sentence} ({self.numbers})" if self.numbers else self.sentence


def verdicts(
    sums: StudySums, meta: dict[str, Any], figures: Collection[str] | None = None
) -> dict[str, list[Verdict]]:  # fmt: skip
    """Figure id → verdicts, for the figures of section 3 and appendix D that were asked for. `figures`: some of them.

    `meta`: what has `random_pairs` (measure → what random vectors score), `n_heads` and `d_vocab`: `study_meta`.
    """
    asked = {block.figure for block in sums.blocks} & set(sums.settings.figures)
    if any(len(block.groups) > 1 for block in sums.blocks) and "13" in sums.settings.figures:
        asked.add("13")
    asked &= set(_FIGURES if figures is None else figures)
    return {figure: _FIGURES[figure](sums, meta) for figure in _FIGURES if figure in asked and sums.prompts}


# ---- answers -------------------------------------------------------------------------------------------------------


def interval(draws: Draws) -> tuple[float, float, float]:
    """The number and its 95 % interval; sets in which it does not exist are passed over. NaN where there is none."""
    held = draws[1:][np.isfinite(draws[1:])]
    low, high = np.percentile(held, BAND) if len(held) else (np.nan, np.nan)
    return float(draws[0]), float(low), float(high)


Size = Callable[[float, bool | None], str]  # the estimate and the answer -> how large it is, in words


def judged(claim: str, what: str, draws: list[Draws], prompts: int, above: float = 0.0, below: bool = False,
           against: float | None = None, note: str = "", size: Size | None = None) -> Verdict:  # fmt: skip
    """Whether a number lies above a limit (`below`: under it). `draws`: by I_k, then by the second measure if any.

    `against`: where the whole interval must lie under this other limit for a no. `size`: says the estimate in the
    sentence; without it `what` and the number do.
    """
    limits = above, above if against is None else against
    value, low, high = interval(draws[0])
    known = bool(np.isfinite(value))
    holds: bool | None = None
    why = ""
    if prompts < FEW_PROMPTS:
        why = f"{prompts} {'prompt is' if prompts == 1 else 'prompts are'} too few"
    elif np.isfinite([value, low, high]).all():
        if below:
            limits = -limits[0], -limits[1]
        ends = (-high, -low) if below else (low, high)
        holds = True if ends[0] > limits[0] else False if ends[1] < limits[1] else None
    else:
        why = "too few numbers"
    said = [] if not known else [f"{what} {short(value)}" if size is None else size(value, holds)]
    numbers = (f"{what} " if size else "95 % interval ") + _figures(value, low, high, bool(size)) if known else ""
    if len(draws) > 1 and known:
        numbers += f", by RBO {_figures(*interval(draws[1]))}"
    sentence = ", ".join([f"{claim}: {_WORDS[holds]}", *said])
    return Verdict(claim, holds, f"{sentence}; {why}" if why else sentence, (numbers + note).removeprefix("; "))


def _level(k: int, base: float | None = None, over: bool = False) -> Size:
    """How many of k words two lists have in common. `base`: what unrelated vectors score; `over`: it is to be above."""

    def size(value: float, holds: bool | None) -> str:
        beside = "" if base is None else f"; unrelated vectors {short(base * k)}"
        if over and holds and base is not None and (value - base) * k < 1:
            return f"but by less than a word: {short(value * k)} of {k} words{beside}"
        return f"{short(value * k)} of {k} words{beside}"

    return size


def _shift(k: int) -> Size:
    """By how many of k words one thing lies above another."""

    def size(value: float, holds: bool | None) -> str:
        words = abs(value) * k
        way = " the other way" if value < 0 else ""
        if words < 1 and holds is not None:
            return f"{'but ' if holds else ''}by less than a word{way} ({short(words)} of {k})"
        return f"by {short(words)} of {k} words{way}"

    return size


def _figures(value: float, low: float, high: float, estimate: bool = True) -> str:
    """`0.25 [0.15, 0.33]`; without the estimate, where the sentence has said it, the interval alone."""
    return (f"{short(value)} " if estimate else "") + band(low, high)


def _few(layers: int) -> str:
    return f"{layers} {'layer is' if layers == 1 else 'layers are'} too few"


def spearman(curves: Curves, along: list[int]) -> Draws:
    """The rank correlation of every set's curve with depth (or rank), equal values sharing their place."""
    place = pd.Series(along).rank().to_numpy()
    ranks = pd.DataFrame(curves).rank(axis=1).to_numpy()
    x, y = place - place.mean(), ranks - ranks.mean(1, keepdims=True)
    scale = np.sqrt((x**2).sum() * (y**2).sum(1))
    return np.divide(y @ x, scale, out=np.full(len(y), np.nan), where=scale > 0)


# ---- what is judged ------------------------------------------------------------------------------------------------


def _curves(sums: StudySums, name: str, group: int = 0) -> list[Curves]:
    """A block's curves over layers by measure, mean over heads and over the ranks there are."""
    mean = sums.cells[name].mean[:, group]  # [draw, measure, layer, head, rank]
    flat = mean.mean(axis=(3, 4))
    return [flat[:, i] for i in range(flat.shape[1])]


def _rises(sums: StudySums, name: str, claim: str, floor: float | None = None) -> Verdict:
    """Whether a curve rises with depth. `floor`: a probability below which all layers count as equal."""
    layers = list(sums.block(name).layers)
    prompts = _prompts(sums, name)
    if len(layers) < FEW_LAYERS:
        return Verdict(claim, None, f"{claim}: undecided, {_few(len(layers))}")
    curves, note = _curves(sums, name), _RULE
    if floor is not None:
        if not float(curves[0][0].max()) > floor:
            return Verdict(claim, None, f"{claim}: undecided, no layer reads more than {short(floor)}, which is noise")
        curves = [np.maximum(curve, floor) for curve in curves]
        note += f"; below {short(floor)} layers count as equal, and ρ is a share of the largest that such ties allow"
    found = [spearman(curve, layers) for curve in curves]
    if floor is not None:  # or a curve that leaves the noise in the last two of thirty layers could not reach the limit
        largest = [spearman(np.sort(curve, axis=1), layers) for curve in curves]
        found = [np.divide(x, y, out=np.full_like(x, np.nan), where=y > 0) for x, y in zip(found, largest, strict=True)]
    return judged(claim, "Spearman ρ =", found, prompts, CLEAR, against=0, note=note)


def _prompts(sums: StudySums, name: str, group: int = 0) -> int:
    return int(sums.cells[name].count[0, group].max())


def _means(sums: StudySums, names: list[str]) -> list[Draws]:
    """The mean over layers and series, by measure."""
    found = [_curves(sums, name) for name in names]
    return [np.mean([own[i].mean(1) for own in found], axis=0) for i in range(len(found[0]))]


def _near_chance(sums: StudySums, meta: dict[str, Any], names: list[str], claim: str) -> Verdict:
    base, k = meta["random_pairs"]["intersection"], sums.settings.k
    note = f"; unrelated vectors {_random(meta)}; up to {short(base + NEAR)} counts as hardly any"
    found, prompts = _means(sums, names), _prompts(sums, names[0])
    return judged(claim, "mean I_k", found, prompts, base + NEAR, True, note=note, size=_level(k, base))


def _over_chance(sums: StudySums, meta: dict[str, Any], names: list[str], claim: str) -> Verdict:
    base, k = meta["random_pairs"]["intersection"], sums.settings.k
    found, prompts = _means(sums, names), _prompts(sums, names[0])
    note = f"; unrelated vectors {_random(meta)}"
    return judged(claim, "mean I_k", found, prompts, base, note=note, size=_level(k, base, over=True))


def _random(meta: dict[str, Any]) -> str:
    """What random vectors score through this model's lens, by every measure."""
    pairs = meta["random_pairs"]
    return short(pairs["intersection"]) + (f" (by RBO {short(pairs['rbo'])})" if "rbo" in pairs else "")


def _difference(a: list[Draws], b: list[Draws]) -> list[Draws]:
    return [x - y for x, y in zip(a, b, strict=True)]


def _figure_2a(sums: StudySums, meta: dict[str, Any]) -> list[Verdict]:
    return [_near_chance(sums, meta, [f"2a/{name}" for name in OTHERS], "Without W_O heads share hardly any words")]


def _figure_2b(sums: StudySums, meta: dict[str, Any]) -> list[Verdict]:
    names = [f"2b/{name}" for name in OTHERS]
    found = [_over_chance(sums, meta, names, "Through W_O heads share words with what follows")]
    found += [_rises(sums, f"2b/{name}", f"Overlap with {_NAMES[name]} rises with depth") for name in OTHERS]
    return [*found, _drops(sums, names)]


def _drops(sums: StudySums, names: list[str]) -> Verdict:
    """Whether the last layer lies below the quarter of the layers before it.

    Not below the highest layer: the highest of many is high by chance, too (flat curves would drop in 28 of 100 runs).
    """
    claim = "Overlap drops in the last layer"
    found = [_curves(sums, name) for name in names]
    curves = [np.mean([own[i] for own in found], axis=0) for i in range(len(found[0]))]
    layers = sums.block(names[0]).layers
    if len(layers) < FEW_LAYERS:
        return Verdict(claim, None, f"{claim}: undecided, {_few(len(layers))}")
    before = slice(-1 - max(1, len(layers) // 4), -1)
    first, last = layers[before][0], layers[before][-1]
    what = f"below layer {last}, by" if first == last else f"below the mean of layers {first} to {last}, by"
    gap = [c[:, before].mean(1) - c[:, -1] for c in curves]
    return judged(claim, what, gap, _prompts(sums, names[0]), size=_shift(sums.settings.k))


def _figure_3(sums: StudySums, meta: dict[str, Any]) -> list[Verdict]:
    claim = "The longest heads share more words with attn_out than the others do"
    heads, longest = meta["n_heads"], sums.block("3/attn_out").ranks
    if heads <= longest:
        found = [Verdict(claim, None, f"{claim}: undecided, a layer has {heads} heads, and there are no others")]
    else:
        every, top = _means(sums, ["2b/attn_out"]), _means(sums, ["3/attn_out"])
        rest = [(heads * x - longest * y) / (heads - longest) for x, y in zip(every, top, strict=True)]
        gap, size = _difference(top, rest), _shift(sums.settings.k)
        found = [judged(claim, "more I_k by", gap, _prompts(sums, "3/attn_out"), size=size)]
    for name in ("block", "final"):
        found.append(_rises(sums, f"3/{name}", f"Their overlap with {_NAMES[name]} rises with depth"))
    return found


def _by_rank(sums: StudySums, name: str) -> list[Float[np.ndarray, "draw rank"]]:
    mean = sums.cells[name].mean[:, 0].mean(axis=(2, 3))  # [draw, measure, rank]
    return [mean[:, i] for i in range(mean.shape[1])]


def _figure_5(sums: StudySums, meta: dict[str, Any]) -> list[Verdict]:
    found, prompts = _by_rank(sums, "5/value"), _prompts(sums, "5/value")
    return [
        judged(
            f"The value attended {_ORDER[i]} is more like its head than the one after it",
            "more I_k by", [x[:, i] - x[:, i + 1] for x in found], prompts, size=_shift(sums.settings.k),
        )
        for i in range(found[0].shape[1] - 1)
    ]  # fmt: skip


_ORDER = ("most", "second most", "third most")


def _figure_13(sums: StudySums, meta: dict[str, Any]) -> list[Verdict]:
    """Correct against incorrect ones: the distance to all prompts would shrink with the share of correct ones."""
    claim = "Prompts answered correctly and the others give almost the same curves"
    names = [f"{figure}/{name}" for figure in ("2b", "3") for name in OTHERS]
    pairs = [(_curves(sums, name, 1), _curves(sums, name, 2)) for name in names]
    gaps = [np.mean([np.abs(a[i] - c[i]).mean(1) for a, c in pairs], axis=0) for i in range(len(pairs[0][0]))]
    prompts = min(_prompts(sums, names[0], 1), _prompts(sums, names[0], 2))
    note = f"; {sums.correct} right, {sums.incorrect} wrong; at most {NEAR} counts"
    size = _level(sums.settings.k)
    found = judged(claim, "mean distance in I_k", gaps, prompts, NEAR, True, note=note, size=size)
    return [found if sums.incorrect else Verdict(claim, None, f"{claim}: undecided, no prompt is answered wrongly")]


def _figure_14(sums: StudySums, meta: dict[str, Any]) -> list[Verdict]:
    name, floor = "14/prediction", NOISE / meta["d_vocab"]
    found = [_rises(sums, name, "The prediction's probability rises with depth", floor)]
    if float(_curves(sums, name)[0][0, -1]) > floor:
        found[0] = _with_half(sums, name, found[0])
    if len(sums.block(name).groups) < 2:
        return found
    (correct,), (incorrect,) = _curves(sums, name, 1), _curves(sums, name, 2)
    layers = correct.shape[1]
    fewest = min(_prompts(sums, name, 1), _prompts(sums, name, 2))
    early, last = slice(0, max(1, layers // 2)), slice(-1, None)
    for claim, at, more, less in (
        ("In the first half of the layers a wrong answer is more probable than a right one", early, incorrect, correct),
        ("In the last layer a right answer is more probable than a wrong one", last, correct, incorrect),
    ):
        means = [curve[:, at].mean(1) for curve in (more, less)]
        note = f"; {sums.correct} right, {sums.incorrect} wrong"
        if max(own[0] for own in means) <= floor:  # nan, where a group is empty, is judged below
            said = f"{claim}: undecided, both lie below {short(floor)}, which is noise"
            found.append(Verdict(claim, None, said, note.removeprefix("; ")))
        else:
            found.append(judged(claim, "by", [means[0] - means[1]], fewest, note=note))
    return found


def _with_half(sums: StudySums, name: str, found: Verdict) -> Verdict:
    """The verdict with the depth from which on the prediction has at least half of its final probability."""
    (curves,), layers = _curves(sums, name), sums.block(name).layers
    if len(layers) < FEW_LAYERS:
        return found
    below = curves < curves[:, -1:] / 2  # the last layer is never below
    first = np.where(below.any(1), curves.shape[1] - below[:, ::-1].argmax(1), 0)
    place = np.where(np.isfinite(curves).all(1), np.array(layers, float)[first], np.nan)
    at, low, high = interval(place)
    if not np.isfinite([at, low, high]).all():
        return found
    final = f"half of its {short(float(curves[0, -1]))} after layer {layers[-1]}"
    half = f"{final} is there from layer {at:.0f} [{low:.0f}, {high:.0f}] on"
    return replace(found, sentence=f"{found.sentence}; {half}")


def _late_over_early(sums: StudySums, name: str) -> Verdict:
    """Whether the layers after the first quarter lie above it."""
    claim = "The first quarter of the layers scores lower than the others"
    curves = _curves(sums, name)
    count = curves[0].shape[1]
    if count < FEW_LAYERS:
        return Verdict(claim, None, f"{claim}: undecided, {_few(count)}")
    first = max(1, count // 4)
    gap = [c[:, first:].mean(1) - c[:, :first].mean(1) for c in curves]
    return judged(claim, "by", gap, _prompts(sums, name), size=_shift(sums.settings.k))


def _figure_15(sums: StudySums, meta: dict[str, Any]) -> list[Verdict]:
    present = {block.series for block in sums.blocks if block.figure == "15"}
    found = []
    if "after" in present:
        gap = _difference(_means(sums, ["15/after"]), _means(sums, ["15/before"]))
        claim = "Attention moves the stream towards its own words"
        prompts, size = _prompts(sums, "15/after"), _shift(sums.settings.k)
        found.append(judged(claim, "after less before, I_k", gap, prompts, size=size))
    if "previous" in present:
        found.append(_over_chance(sums, meta, ["15/previous"], "attn_out resembles the previous block's attn_out"))
    return [*found, _late_over_early(sums, "15/after" if "after" in present else "15/block")]


def _figure_16(sums: StudySums, meta: dict[str, Any]) -> list[Verdict]:
    claim = "The less a memory value is attended, the less it is like its head"
    count = sums.cells["16/value"].count[0, 0]
    held = int((count >= FEW_PROMPTS).sum())  # ranks are in order: those that enough prompts have come first
    if held < 3:
        found = Verdict(claim, None, f"{claim}: undecided, {held} ranks that {FEW_PROMPTS} prompts have are too few")
    else:
        draws = [spearman(x[:, :held], list(range(held))) for x in _by_rank(sums, "16/value")]
        rule = f"; a yes has all of it below −{CLEAR}, a no above 0"
        found = judged(claim, f"Spearman ρ over {held} ranks =", draws, int(count[0]), -CLEAR, True, 0, rule)
    mean = sums.cells["16/value"].mean[:, 0, :, :, 0, 0]  # of the most attended: [draw, measure, layer]
    return [found, _late_first_rank(mean, int(count[0]), sums.settings.k)]


def _late_first_rank(mean: np.ndarray, prompts: int, k: int) -> Verdict:
    claim = "The most attended value is less like its head in the first quarter of the layers"
    layers = mean.shape[-1]
    if layers < FEW_LAYERS:
        return Verdict(claim, None, f"{claim}: undecided, {_few(layers)}")
    first = max(1, layers // 4)
    gap = mean[..., first:].mean(-1) - mean[..., :first].mean(-1)
    return judged(claim, "by", list(gap.T), prompts, size=_shift(k))


def _figure_17(sums: StudySums, meta: dict[str, Any]) -> list[Verdict]:
    """In how many heads the most attended value is more like the head than each of the others shown."""
    claim = "In nearly all heads the most attended value is the most alike"
    mean = sums.cells["17/value"].mean[:, 0]  # [draw, measure, layer, head, rank]
    if mean.shape[-1] < 2:
        return [Verdict(claim, None, f"{claim}: undecided, prompts of one token have one value")]
    share = (mean[..., 0] > mean[..., 1:].max(axis=-1)).mean(axis=(2, 3))
    share[~np.isfinite(mean).all(axis=(2, 3, 4))] = np.nan
    note = f"; {percent(NEARLY_ALL)} and more counts"
    return [judged(claim, "share of heads", list(share.T), _prompts(sums, "17/value"), NEARLY_ALL, note=note)]


def _figure_18(sums: StudySums, meta: dict[str, Any]) -> list[Verdict]:
    base = 1 / meta["d_vocab"]
    claim = "A memory value holds its source token more than by chance"
    mean = _means(sums, ["18/value"])
    note = f"; by chance {short(base)}"
    found = judged(claim, "mean probability", mean, _prompts(sums, "18/value"), base, note=note)
    return [found, _rises(sums, "18/value", "The source token's probability rises with depth", base)]


def _of_keys(figure: str, who: str) -> Callable[[StudySums, dict[str, Any]], list[Verdict]]:
    def found(sums: StudySums, meta: dict[str, Any]) -> list[Verdict]:
        series = [block.series for block in sums.blocks if block.figure == figure]
        return [_near_chance(sums, meta, [f"{figure}/{s}"], f"{who} share hardly any words ({s})") for s in series]

    return found


_FIGURES: dict[str, Callable[[StudySums, dict[str, Any]], list[Verdict]]] = {
    "2a": _figure_2a, "2b": _figure_2b, "3": _figure_3, "5": _figure_5, "13": _figure_13, "14": _figure_14,
    "15": _figure_15, "16": _figure_16, "17": _figure_17, "18": _figure_18,
    "19": _of_keys("19", "Queries and keys"), "20": _of_keys("20", "Keys and their memory values"),
}  # fmt: skip
