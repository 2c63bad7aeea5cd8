"""How long a study will take, and what takes it: vectors counted, speed measured on this machine.

Counted is all that a run and its page do: forward passes (one for the figures of section 3, one each for the norms and
the neurons), vectors read through the vocabulary, comparisons of words, the bootstrap's sums, the rows of the weights
that no run has read yet, the words of norms and neurons, and the charts. Four of these are timed once per model, on
some hundred vectors; the tables and charts go by ratios that were measured (`benchmarks/study.py forecast`).
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from visit.activations.forward import capture_many
from visit.lenses.similarity import agreement, read_tops
from visit.lenses.weights import forecast_seconds, found_index, rows_in_all
from visit.models.model import Model, has_norm, tokenize
from visit.runs.job import shorter_of_two
from visit.runs.prompts import Row
from visit.studies.measure import STUDY_PARTS
from visit.studies.plan import has_places, has_resid_mid, plan, readings
from visit.studies.settings import ALIGNED, ATTENDED, DRAWN, EARLY, NEURON_FIGURES, Settings, settled

TIMED = 256  # vectors read to measure the speed
WORD, NEURON, PANEL = 5e-7, 7e-5, 0.1  # seconds: per word and layer of the norms' tables, per neuron, per chart
TIMED_TOKENS = 12  # of the prompt whose forward pass is measured: the paper's longest has 14
LONG, SHORT = 90.0, 60.0  # seconds from which on a cheaper run is offered, and which that should take at most
CHEAP = (  # figures that a cheaper run keeps, the most first; queries, keys and all memory values take the time
    ("2b", "3", "5", "7", "13", "14", EARLY, "15", "17", "21", "22", "tables"),
    ("2b", "3", "5", "13", "14", EARLY, "15", "17"), ("2b", "3", "13", "14", EARLY, "15"),
)  # fmt: skip
FEWER = 20  # prompts: enough for most verdicts
CHARTS = "drawing charts"  # the part that a page does and the command line does not


@dataclass(frozen=True)
class Speed:
    """Seconds on this machine: to read one vector, to compare two lists of words, to run one token, to add one number
    to the sums of a thousand resampled sets, to read one row of the weights."""

    vector: float
    pair: float
    token: float
    cell: float
    row: float


_SPEEDS: weakref.WeakKeyDictionary[Model, Speed] = weakref.WeakKeyDictionary()


def speed(model: Model) -> Speed:
    """Measured once per model: a product of some hundred vectors, and a short forward pass."""
    if model not in _SPEEDS:
        x = torch.randn(TIMED, model.d_model, dtype=model.wide, device=model.device)
        prompt = [i % model.d_vocab for i in range(min(TIMED_TOKENS, model.max_tokens))]
        with torch.no_grad():
            k = min(50, model.d_vocab)
            vector = shorter_of_two(lambda: read_tops(model, x, k)) / TIMED
            ids = read_tops(model, x, k).ids
            pair = shorter_of_two(lambda: agreement(ids[:, None], ids[None, :8], ("intersection", "rbo"))) / (8 * TIMED)
        token = shorter_of_two(lambda: list(capture_many(model, [prompt], STUDY_PARTS))) / len(prompt)
        weight, numbers, total = np.ones((1000, 1)), np.ones((1, 1000)), np.zeros((1000, 1000))
        cell = shorter_of_two(lambda: total + weight @ numbers) / 1000
        row = forecast_seconds(model) / rows_in_all(model)
        _SPEEDS[model] = Speed(vector, pair, token, cell, row)
    return _SPEEDS[model]


def counts(model: Model, seen: Sequence[int], settings: Settings) -> dict[str, int]:
    """Vectors that a study reads, by what they are. `seen`: per prompt, positions that the looked-at one can see."""
    asks, layers = settings.asks, len(settings.layers or range(model.n_layers))
    each, ways, naive = len(seen) * layers, len(readings(model)), has_places(model)
    sources = sum(min(settings.sources, n) for n in seen) * layers * model.n_heads
    turned = sources if model.family.rotary else each * model.n_heads  # without rotation all sources see one query
    looked_at = set(settings.layers or range(model.n_layers))
    places = len(looked_at | {n - 1 for n in looked_at if n and asks("15")})
    states = 1 + places * settings.states_wanted() + places * asks("2a", "2b", "3", "13", "15")
    states += asks("15") * (layers * has_resid_mid(model) + (0 in looked_at))
    found = {
        "the model's states and attn_out": len(seen) * states,
        "how early the model knows": len(seen) * model.n_layers * len(settings.lenses_wanted()),
        "heads without W_O": each * model.n_heads * (asks("2a") and naive),
        "heads": each * model.n_heads * settings.heads_wanted(),
        "memory values": layers * model.n_heads * sum(settings.values_wanted(n) for n in seen),
        "queries": asks("19") * ((ways - naive) * turned + naive * each * model.n_heads),
        "keys": asks("19", "20") * ways * sources,
        "norms (Figures 7, 21 to 23, tables)": len(seen) * model.n_layers * _norms(model, settings),
    }
    return {name: int(number) for name, number in found.items() if number}


def _norms(model: Model, settings: Settings) -> int:
    """Vectors that the norms of one layer read per prompt: before and after each."""
    both = sum(has_norm(model, norm) for norm in ("ln1", "ln2")) * settings.asks("7", "21", "22", "tables")
    return 2 * (both + has_norm(model, "ln1") * settings.asks("23", "tables"))


def vectors_of(model: Model, seen: int, settings: Settings) -> int:
    """Vectors that one prompt reads."""
    return sum(counts(model, [seen], settings).values())


def pairs(model: Model, seen: Sequence[int], settings: Settings) -> int:
    """How many lists of words a study compares."""
    asks, layers, heads = settings.asks, len(settings.layers or range(model.n_layers)), model.n_heads
    shown = [settings.values or n if asks("16") else ATTENDED for n in seen]
    found = len(seen) * heads * 3 * (asks("2a") * has_places(model) + asks("2b", "3", "13"))
    found += heads * sum(min(n, most) for n, most in zip(seen, shown, strict=True)) * asks("5", "16", "17")
    sources = sum(min(n, settings.sources) for n in seen)
    found += heads * sources * len(readings(model)) * (asks("19") + asks("20"))
    around = layers * (3 + has_resid_mid(model)) - (0 in (settings.layers or (0,)))  # nothing stands before block 0
    return layers * found + len(seen) * around * asks("15")


def passes(settings: Settings) -> int:
    """Forward passes of every prompt: the figures of section 3 share one, norms and neurons have their own."""
    return 1 + sum(settings.asks(*some) for some in (("7", "21", "22", "tables"), ("23", "tables"), NEURON_FIGURES))


def cells(model: Model, settings: Settings) -> int:
    """Numbers of one prompt that are added to every resampled set, for each group of prompts it may be in."""
    blocks = plan(model, settings, TIMED_TOKENS, True).blocks
    return sum(math.prod(block.shape) * len(block.groups) for block in blocks) * settings.draws // 1000


def charts(model: Model, settings: Settings, seen: Sequence[int]) -> int:
    """How many charts show the study: a panel per measure and series, as `visit.figures.study` lays them out."""
    apart = {"3": 3, "13": 2, "14": 1 + bool(settings.lens), "17": 3}
    blocks = {block.figure: block.measures for block in plan(model, settings, max(seen, default=1), True).blocks}
    if EARLY in blocks:
        blocks[EARLY] = DRAWN
    shown = [figure for figure in settings.figures if figure in blocks or figure == "13"]
    found = sum(apart.get(figure, 1) * len(blocks.get(figure, settings.measures)) for figure in shown)
    return found + sum(figure not in ALIGNED for figure in settings.figures)


def prompt_seconds(model: Model, lengths: Sequence[int], seen: Sequence[int], settings: Settings) -> list[float]:
    """What every prompt takes. `lengths`: in tokens; `seen`: positions that its looked-at one can see."""
    own, many = speed(model), passes(settings)
    added = own.cell * cells(model, settings)
    known = {n: own.vector * vectors_of(model, n, settings) + own.pair * pairs(model, [n], settings) for n in set(seen)}
    return [own.token * many * length + known[n] + added for length, n in zip(lengths, seen, strict=True)]


def part_seconds(model: Model, parts: Sequence[range | None], settings: Settings) -> list[float]:
    """What every step after the prompts takes: rows of the weights (none where they were read), or the words (None)."""
    row = speed(model).row if found_index(model) is None else 0.0
    return [words_seconds(model, settings) if rows is None else row * len(rows) for rows in parts]


def words_seconds(model: Model, settings: Settings) -> float:
    """What the tables of norms and neurons take, once all prompts are run."""
    tables = 2 * settings.asks("7") + settings.asks("21", "22") + 2 * settings.asks("tables") + settings.asks("23")
    return model.n_layers * (WORD * model.d_vocab * tables + NEURON * model.d_mlp * settings.asks(*NEURON_FIGURES))


def study_forecast(model: Model, rows: Sequence[Row], settings: Settings | None = None) -> pd.DataFrame:
    """What a study of these prompts takes, a row per part, from a speed that is measured here and now (once a model).

    Columns: `part`, `vectors` (forward passes: tokens; comparisons: pairs; else what is counted), `products` (FLOP of
    the products with W_U; of the forward passes those with the blocks' weights), `seconds`. Where only correct answers
    are wanted it is an upper bound, for nobody knows yet how many there are. Source: ours.
    """
    settings = settled(settings or Settings(), model)
    lengths = [len(tokenize(model, row.prompt)) for row in rows]
    seen = [(settings.pos % n if -n <= settings.pos < n else n - 1) + 1 for n in lengths]
    own, tokens = speed(model), sum(lengths) * passes(settings)
    flat = sum(p.numel() for p in model.blocks.parameters())
    reading = 2 * model.d_model * model.d_vocab
    table = [("forward passes", tokens, 2 * flat * tokens, own.token * tokens)]
    for name, number in counts(model, seen, settings).items():
        table.append((name, number, reading * number, own.vector * number))
    compared, summed = pairs(model, seen, settings), len(rows) * cells(model, settings)
    table += [("comparing words, in pairs", compared, 0, own.pair * compared),
              ("the sums of resampled sets", summed, 0, own.cell * summed)]  # fmt: skip
    if settings.asks(*NEURON_FIGURES) and found_index(model) is None:
        number = rows_in_all(model)
        table.append(("all rows of the weights, once per model", number, reading * number, own.row * number))
    if words := words_seconds(model, settings):
        table.append(("the words of norms and neurons", model.n_layers * (model.d_vocab + model.d_mlp), 0, words))
    drawn = charts(model, settings, seen)
    table.append((CHARTS, drawn, 0, PANEL * drawn))
    return pd.DataFrame(table, columns=["part", "vectors", "products", "seconds"])


def cheaper(model: Model, rows: Sequence[Row], settings: Settings) -> tuple[Settings, int, float] | None:
    """A run that takes a minute at most where the one that is asked for takes longer than a minute and a half.

    (Settings with fewer figures, how many prompts, their seconds): of those that are quick enough the one with most
    figures, of 20 prompts. None where the asked one is quick itself, or nothing cheaper is left of it.
    """

    def takes(few: Sequence[Row], own: Settings) -> float:
        return float(study_forecast(model, few, own)["seconds"].sum())

    full = takes(rows, settings)
    if full <= LONG:
        return None
    step = max(1, len(rows) // FEWER)
    few = list(rows)[::step][:FEWER]
    found = None
    for figures in CHEAP:
        kept = tuple(figure for figure in figures if settings.asks(figure))
        if kept:
            own = settled(replace(settings, figures=kept), model)
            found = own, len(few), takes(few, own)
            if found[2] <= SHORT:
                return found
    return found if found is not None and found[2] < full / 3 else None
