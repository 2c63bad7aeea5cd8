"""What this run's numbers say about the paper's findings: each a claim, an answer, and a sentence with an interval.

An answer is "yes" where the whole 95 % bootstrap interval over prompts is on the claim's side, "no" where it is on the
other side, "undecided" where it is on both, or where there are too few prompts or layers to say. It names its size in
words of the k compared, for with many prompts the smallest difference is certain. Probabilities that no layer lifts out
of the noise are not ranked: what lies below a limit counts as equal.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from visit.studies.early import CONFIDENT
from visit.studies.plan import OTHERS
from visit.studies.record import BAND, Verdict
from visit.studies.settings import DEPTHS, EARLY, EXITS
from visit.studies.sums import StudySums
from visit.text.numbers import band, percent, short

FEW_PROMPTS, FEW_LAYERS = 5, 4  # with fewer nothing is decided
NEAR = 0.05  # above what random vectors score: what still counts as hardly any overlap
NEARLY_ALL = 0.9  # of the heads, or of the prompts
EXIT_SAVES = 0.2  # of the blocks: what an early exit saved in Geva et al. 2022
CLEAR = 0.5  # a rank correlation from which a curve is said to rise; under 0 it does not, between nobody can say
NOISE = 10  # times 1/V: a probability below is what a lens reads of anything, and its ranks say nothing
_RULE = f"; a yes has all of it above {CLEAR}, a no below 0"
_NAMES = {"attn_out": "attn_out", "block": "the block's output", "final": "the final state"}
_ANSWERS = {True: "yes", False: "no", None: "undecided"}

Draws = Float[np.ndarray, " draw"]  # a number: of the prompts as they are, then of every resampled set
Curves = Float[np.ndarray, "draw layer"]


def verdicts(
    sums: StudySums, meta: dict[str, Any], figures: Collection[str] | None = None
) -> dict[str, list[Verdict]]:  # fmt: skip
    """Figure id → verdicts, for the figures of section 3 and appendix D that were asked for. `figures`: some of them.

    `meta`: what has `random_pairs` (measure → what random vectors score), `n_layers`, `n_heads` and `d_vocab`:
    `study_meta`.
    """
    asked = {block.figure for block in sums.blocks} & set(sums.settings.figures)
    if any(len(block.groups) > 1 for block in sums.blocks) and "13" in sums.settings.figures:
        asked.add("13")
    asked &= set(_FIGURES if figures is None else figures)
    found = Evidence(sums, meta)
    return {figure: judge(found) for figure, judge in _FIGURES.items() if figure in asked and sums.prompts}


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
    against = above if against is None else against
    value, low, high = interval(draws[0])
    holds, why = None, ""
    if prompts < FEW_PROMPTS:
        why = f"; {prompts} {'prompt is' if prompts == 1 else 'prompts are'} too few"
    elif not np.isfinite([value, low, high]).all():
        why = "; too few numbers"
    elif below:
        holds = True if high < above else False if low > against else None
    else:
        holds = True if low > above else False if high < against else None
    sentence, numbers = f"{claim}: {_ANSWERS[holds]}", ""
    if np.isfinite(value):
        if size is None:
            sentence, numbers = f"{sentence}, {what} {short(value)}", f"95 % interval {band(low, high)}"
        else:
            sentence, numbers = f"{sentence}, {size(value, holds)}", f"{what} {short(value)} {band(low, high)}"
        if len(draws) > 1:
            value, low, high = interval(draws[1])
            numbers += f", by RBO {short(value)} {band(low, high)}"
    return Verdict(claim, holds, sentence + why, (numbers + note).removeprefix("; "))


def undecided(claim: str, why: str, numbers: str = "") -> Verdict:
    """A claim that these numbers cannot decide, with the reason."""
    return Verdict(claim, None, f"{claim}: undecided, {why}", numbers)


def _few_layers(claim: str, layers: int) -> Verdict:
    return undecided(claim, f"{layers} {'layer is' if layers == 1 else 'layers are'} too few")


def _level(k: int, base: float | None, over: bool, value: float, holds: bool | None) -> str:
    """How many of k words two lists have in common. `base`: what unrelated vectors score; `over`: it is to be above."""
    beside = "" if base is None else f"; unrelated vectors {short(base * k)}"
    small = over and holds and base is not None and (value - base) * k < 1
    return f"{'but by less than a word: ' if small else ''}{short(value * k)} of {k} words{beside}"


def _shift(k: int, value: float, holds: bool | None) -> str:
    """By how many of k words one thing lies above another."""
    words = abs(value) * k
    way = " the other way" if value < 0 else ""
    if words < 1 and holds is not None:
        return f"{'but ' if holds else ''}by less than a word{way} ({short(words)} of {k})"
    return f"by {short(words)} of {k} words{way}"


def spearman(curves: Curves, along: list[int]) -> Draws:
    """The rank correlation of every set's curve with depth (or rank), equal values sharing their place."""
    place = pd.Series(along).rank().to_numpy()
    ranks = pd.DataFrame(curves).rank(axis=1).to_numpy()
    x, y = place - place.mean(), ranks - ranks.mean(1, keepdims=True)
    scale = np.sqrt((x**2).sum() * (y**2).sum(1))
    return np.divide(y @ x, scale, out=np.full(len(y), np.nan), where=scale > 0)


# ---- what is judged ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evidence:
    """A run's numbers, as claims ask for them: by I_k first, then by the second measure, if there is one."""

    sums: StudySums
    meta: dict[str, Any]

    @property
    def k(self) -> int:
        return self.sums.settings.k

    @property
    def base(self) -> float:
        """What unrelated vectors score."""
        return self.meta["random_pairs"]["intersection"]

    @property
    def unrelated(self) -> str:
        """What they score by every measure, in words."""
        pairs = self.meta["random_pairs"]
        return f"unrelated vectors {short(self.base)}" + (f" (by RBO {short(pairs['rbo'])})" if "rbo" in pairs else "")

    @property
    def answers(self) -> str:
        return f"; {self.sums.correct} right, {self.sums.incorrect} wrong"

    def prompts(self, name: str, group: int = 0) -> int:
        return int(self.sums.cells[name].count[0, group].max())

    def layers(self, name: str) -> tuple[int, ...]:
        return self.sums.block(name).layers

    def series(self, figure: str) -> list[str]:
        return [block.series for block in self.sums.blocks if block.figure == figure]

    def cells(self, name: str, group: int = 0) -> list[Float[np.ndarray, "draw layer head rank"]]:
        mean = self.sums.cells[name].mean[:, group]
        return [mean[:, i] for i in range(mean.shape[1])]

    def curves(self, name: str, group: int = 0) -> list[Curves]:
        """A block's curves over layers, mean over heads and over the ranks there are."""
        return [cells.mean(axis=(2, 3)) for cells in self.cells(name, group)]

    def means(self, names: list[str]) -> list[Draws]:
        """The mean over layers and series."""
        return [np.mean([curve.mean(1) for curve in own], axis=0)
                for own in zip(*map(self.curves, names), strict=True)]  # fmt: skip


def _rises(found: Evidence, name: str, claim: str, floor: float | None = None) -> Verdict:
    """Whether a curve rises with depth. `floor`: a probability below which all layers count as equal."""
    layers, curves, note = list(found.layers(name)), found.curves(name), _RULE
    if len(layers) < FEW_LAYERS:
        return _few_layers(claim, len(layers))
    if floor is None:
        draws = [spearman(curve, layers) for curve in curves]
    elif not float(curves[0][0].max()) > floor:
        return undecided(claim, f"no layer reads more than {short(floor)}, which is noise")
    else:  # a curve that leaves the noise in the last two of thirty layers could not reach the limit
        curves = [np.maximum(curve, floor) for curve in curves]
        note += f"; below {short(floor)} layers count as equal, and ρ is a share of the largest that such ties allow"
        pairs = [(spearman(curve, layers), spearman(np.sort(curve, axis=1), layers)) for curve in curves]
        draws = [np.divide(x, y, out=np.full_like(x, np.nan), where=y > 0) for x, y in pairs]
    return judged(claim, "Spearman ρ =", draws, found.prompts(name), CLEAR, against=0, note=note)


def _against_chance(found: Evidence, names: list[str], claim: str, near: bool = False) -> Verdict:
    """Whether lists share more words than unrelated ones do; `near`: hardly more."""
    limit = found.base + NEAR * near
    note = f"; {found.unrelated}" + (f"; up to {short(limit)} counts as hardly any" if near else "")
    size = partial(_level, found.k, found.base, not near)
    return judged(claim, "mean I_k", found.means(names), found.prompts(names[0]), limit, near, note=note, size=size)


def _late_over_early(found: Evidence, claim: str, curves: list[Curves], prompts: int) -> Verdict:
    """Whether the layers after the first quarter lie above it."""
    count = curves[0].shape[1]
    if count < FEW_LAYERS:
        return _few_layers(claim, count)
    first = max(1, count // 4)
    gap = [curve[:, first:].mean(1) - curve[:, :first].mean(1) for curve in curves]
    return judged(claim, "by", gap, prompts, size=partial(_shift, found.k))


def _minus(a: list[Draws], b: list[Draws]) -> list[Draws]:
    return [x - y for x, y in zip(a, b, strict=True)]


# ---- figure by figure ------------------------------------------------------------------------------------------------


def _figure_2a(found: Evidence) -> list[Verdict]:
    names = [f"2a/{name}" for name in OTHERS]
    return [_against_chance(found, names, "Without W_O heads share hardly any words", near=True)]


def _figure_2b(found: Evidence) -> list[Verdict]:
    names = [f"2b/{name}" for name in OTHERS]
    over = _against_chance(found, names, "Through W_O heads share words with what follows")
    rise = [_rises(found, f"2b/{name}", f"Overlap with {_NAMES[name]} rises with depth") for name in OTHERS]
    return [over, *rise, _drops(found, names)]


def _drops(found: Evidence, names: list[str]) -> Verdict:
    """Whether the last layer lies below the quarter of the layers before it.

    Not below the highest layer: the highest of many is high by chance, too (flat curves would drop in 28 of 100 runs).
    """
    claim, layers = "Overlap drops in the last layer", found.layers(names[0])
    if len(layers) < FEW_LAYERS:
        return _few_layers(claim, len(layers))
    curves = [np.mean(own, axis=0) for own in zip(*map(found.curves, names), strict=True)]
    before = slice(-1 - max(1, len(layers) // 4), -1)
    first, last = layers[before][0], layers[before][-1]
    what = f"below layer {last}, by" if first == last else f"below the mean of layers {first} to {last}, by"
    gap = [curve[:, before].mean(1) - curve[:, -1] for curve in curves]
    return judged(claim, what, gap, found.prompts(names[0]), size=partial(_shift, found.k))


def _figure_3(found: Evidence) -> list[Verdict]:
    claim = "The longest heads share more words with attn_out than the others do"
    heads, longest = found.meta["n_heads"], found.sums.block("3/attn_out").ranks
    if heads <= longest:
        more = undecided(claim, f"a layer has {heads} heads, and there are no others")
    else:
        every, top = found.means(["2b/attn_out"]), found.means(["3/attn_out"])
        rest = [(heads * x - longest * y) / (heads - longest) for x, y in zip(every, top, strict=True)]
        more = judged(claim, "more I_k by", _minus(top, rest), found.prompts("3/attn_out"),
                      size=partial(_shift, found.k))  # fmt: skip
    return [more, *(_rises(found, f"3/{name}", f"Their overlap with {_NAMES[name]} rises with depth")
                    for name in ("block", "final"))]  # fmt: skip


def _figure_5(found: Evidence) -> list[Verdict]:
    ranks = [cells.mean(axis=(1, 2)) for cells in found.cells("5/value")]  # [draw, rank]
    return [
        judged(
            f"The value attended {_ORDER[i]} is more like its head than the one after it",
            "more I_k by", [x[:, i] - x[:, i + 1] for x in ranks], found.prompts("5/value"),
            size=partial(_shift, found.k),
        )
        for i in range(ranks[0].shape[1] - 1)
    ]  # fmt: skip


_ORDER = ("most", "second most", "third most")


def _figure_13(found: Evidence) -> list[Verdict]:
    """Correct against incorrect ones: the distance to all prompts would shrink with the share of correct ones."""
    claim = "Prompts answered correctly and the others give almost the same curves"
    if not found.sums.incorrect:
        return [undecided(claim, "no prompt is answered wrongly")]
    names = [f"{figure}/{name}" for figure in ("2b", "3") for name in OTHERS]
    pairs = [(found.curves(name, 1), found.curves(name, 2)) for name in names]
    gaps = [np.mean([np.abs(a[i] - c[i]).mean(1) for a, c in pairs], axis=0) for i in range(len(pairs[0][0]))]
    fewest = min(found.prompts(names[0], 1), found.prompts(names[0], 2))
    note = f"{found.answers}; at most {NEAR} counts"
    return [judged(claim, "mean distance in I_k", gaps, fewest, NEAR, True, note=note,
                   size=partial(_level, found.k, None, False))]  # fmt: skip


def _figure_14(found: Evidence) -> list[Verdict]:
    made = _believed(found, "14/prediction")
    return made + (_believed(found, "14/fitted", "Fitted lens: ") if "fitted" in found.series("14") else [])


def _believed(found: Evidence, name: str, lens: str = "") -> list[Verdict]:
    """What one lens says of the prediction's probability. `lens`: what a claim begins with."""
    floor = NOISE / found.meta["d_vocab"]
    made = [_rises(found, name, _begun(lens, "The prediction's probability rises with depth"), floor)]
    if float(found.curves(name)[0][0, -1]) > floor:
        made[0] = _with_half(found, name, made[0])
    if len(found.sums.block(name).groups) < 2:
        return made
    (correct,), (incorrect,) = found.curves(name, 1), found.curves(name, 2)
    fewest = min(found.prompts(name, 1), found.prompts(name, 2))
    early, last = slice(0, max(1, correct.shape[1] // 2)), slice(-1, None)
    for claim, at, more, less in (
        ("In the first half of the layers a wrong answer is more probable than a right one", early, incorrect, correct),
        ("In the last layer a right answer is more probable than a wrong one", last, correct, incorrect),
    ):
        means, claim = [curve[:, at].mean(1) for curve in (more, less)], _begun(lens, claim)
        if max(own[0] for own in means) <= floor:  # nan, where a group is empty, is judged below
            why = f"both lie below {short(floor)}, which is noise"
            made.append(undecided(claim, why, found.answers.removeprefix("; ")))
        else:
            made.append(judged(claim, "by", [means[0] - means[1]], fewest, note=found.answers))
    return made


def _begun(lens: str, claim: str) -> str:
    return f"{lens}{claim[0].lower()}{claim[1:]}" if lens else claim


def _with_half(found: Evidence, name: str, verdict: Verdict) -> Verdict:
    """The verdict with the depth from which on the prediction has at least half of its final probability."""
    (curves,), layers = found.curves(name), found.layers(name)
    if len(layers) < FEW_LAYERS:
        return verdict
    below = curves < curves[:, -1:] / 2  # the last layer is never below
    first = np.where(below.any(1), curves.shape[1] - below[:, ::-1].argmax(1), 0)
    at, low, high = interval(np.where(np.isfinite(curves).all(1), np.array(layers, float)[first], np.nan))
    if not np.isfinite([at, low, high]).all():
        return verdict
    final = f"half of its {short(float(curves[0, -1]))} after layer {layers[-1]}"
    half = f"{final} is there from layer {at:.0f} [{low:.0f}, {high:.0f}] on"
    return replace(verdict, sentence=f"{verdict.sentence}; {half}")


def _figure_15(found: Evidence) -> list[Verdict]:
    present, made = found.series("15"), []
    if "after" in present:
        gap = _minus(found.means(["15/after"]), found.means(["15/before"]))
        claim = "Attention moves the stream towards its own words"
        made.append(judged(claim, "after less before, I_k", gap, found.prompts("15/after"),
                           size=partial(_shift, found.k)))  # fmt: skip
    if "previous" in present:
        made.append(_against_chance(found, ["15/previous"], "attn_out resembles the previous block's attn_out"))
    name = f"15/{'after' if 'after' in present else 'block'}"
    claim = "The first quarter of the layers scores lower than the others"
    return [*made, _late_over_early(found, claim, found.curves(name), found.prompts(name))]


def _figure_16(found: Evidence) -> list[Verdict]:
    claim = "The less a memory value is attended, the less it is like its head"
    count = found.sums.cells["16/value"].count[0, 0]
    held = int((count >= FEW_PROMPTS).sum())  # ranks are in order: those that enough prompts have come first
    if held < 3:
        falls = undecided(claim, f"{held} ranks that {FEW_PROMPTS} prompts have are too few")
    else:
        ranks = [cells.mean(axis=(1, 2))[:, :held] for cells in found.cells("16/value")]
        draws = [spearman(x, list(range(held))) for x in ranks]
        rule = f"; a yes has all of it below −{CLEAR}, a no above 0"
        falls = judged(claim, f"Spearman ρ over {held} ranks =", draws, int(count[0]), -CLEAR, True, 0, rule)
    claim = "The most attended value is less like its head in the first quarter of the layers"
    most_attended = [cells[:, :, 0, 0] for cells in found.cells("16/value")]
    return [falls, _late_over_early(found, claim, most_attended, int(count[0]))]


def _figure_17(found: Evidence) -> list[Verdict]:
    """In how many heads the most attended value is more like the head than each of the others shown."""
    claim = "In nearly all heads the most attended value is the most alike"
    cells = found.cells("17/value")
    if cells[0].shape[-1] < 2:
        return [undecided(claim, "prompts of one token have one value")]
    shares = []
    for mean in cells:
        share = (mean[..., 0] > mean[..., 1:].max(axis=-1)).mean(axis=(1, 2))
        shares.append(np.where(np.isfinite(mean).all(axis=(1, 2, 3)), share, np.nan))
    note = f"; {percent(NEARLY_ALL)} and more counts"
    return [judged(claim, "share of heads", shares, found.prompts("17/value"), NEARLY_ALL, note=note)]


def _figure_18(found: Evidence) -> list[Verdict]:
    base, name = 1 / found.meta["d_vocab"], "18/value"
    claim = "A memory value holds its source token more than by chance"
    over = judged(claim, "mean probability", found.means([name]), found.prompts(name), base,
                  note=f"; by chance {short(base)}")  # fmt: skip
    return [over, _rises(found, name, "The source token's probability rises with depth", base)]


def _share_hardly_any(figure: str, who: str, found: Evidence) -> list[Verdict]:
    """Figures 19 and 20: every way in which keys are read."""
    return [
        _against_chance(found, [f"{figure}/{way}"], f"{who} share hardly any words ({way})", near=True)
        for way in found.series(figure)
    ]


def _figure_early(found: Evidence) -> list[Verdict]:
    """How early the model knows: what a fitted lens adds, and what an exit would save through the better lens."""
    lens = "fitted" if "fitted" in found.series(EARLY) else "plain"
    n, prompts, made = found.meta["n_layers"], found.prompts(f"{EARLY}/{lens}: exit"), []
    early = [i for i, layer in enumerate(found.layers(f"{EARLY}/{lens}")) if layer < n - 1]
    if lens == "fitted" and early:
        top1 = [found.curves(f"{EARLY}/{name}")[DEPTHS.index("top1")][:, early].mean(1) for name in ("fitted", "plain")]
        made.append(judged(
            "Before the last block the fitted lens names the final word more often than the plain one", "more often by",
            [top1[0] - top1[1]], prompts, note="; mean over blocks",
            size=lambda *_: f"{percent(float(top1[0][0]))} of the prompts, plain {percent(float(top1[1][0]))}",
        ))  # fmt: skip
    whole = {m: x.mean(1) for m, x in zip(EXITS, found.curves(f"{EARLY}/{lens}: exit"), strict=True)}
    through = f"; {lens} lens"
    last, saves = float(whole["saturation"][0]), float(whole["exit_saved"][0])
    after = f"of {n} blocks: it stays from block {short(last)} on, on average"
    made.append(judged(
        f"{percent(EXIT_SAVES)} of the blocks come after the final word is settled", "blocks", [whole["saved"]],
        prompts, EXIT_SAVES * n, note=through, size=lambda value, _: f"{short(value)} {after}",
    ))  # fmt: skip
    rest = f"in {percent(float(whole['exit_same'][0]))} of the prompts, and saves {short(saves)} of {n} blocks"
    made.append(judged(
        f"An exit at the first block whose top word has {percent(CONFIDENT)} names the final word", "share",
        [whole["exit_same"]], prompts, NEARLY_ALL, note=f"{through}; {percent(NEARLY_ALL)} and more counts",
        size=lambda *_: rest,
    ))  # fmt: skip
    return made


_FIGURES: dict[str, Callable[[Evidence], list[Verdict]]] = {
    "2a": _figure_2a, "2b": _figure_2b, "3": _figure_3, "5": _figure_5, "13": _figure_13, "14": _figure_14,
    EARLY: _figure_early,
    "15": _figure_15, "16": _figure_16, "17": _figure_17, "18": _figure_18,
    "19": partial(_share_hardly_any, "19", "Queries and keys"),
    "20": partial(_share_hardly_any, "20", "Keys and their memory values"),
}  # fmt: skip
