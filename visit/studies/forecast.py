"""How long a study will take, and what takes it: vectors counted, speed measured on this machine."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch

from visit.forward import capture_many, tokenize
from visit.model import Model
from visit.promptfile import Row
from visit.static import is_ready, matrices
from visit.studies.plan import readings
from visit.studies.reading import agreement, read_tops
from visit.studies.settings import ATTENDED, NEURONS, NORMS, Settings, settled
from visit.studies.vectors import PARTS, has_places, has_resid_mid

ROWS = 256  # vectors read to measure the speed
TOKENS = 12  # of the prompt whose forward pass is measured: the paper's longest has 14


@dataclass(frozen=True)
class Speed:
    """Seconds on this machine: to read one vector, to compare two lists of words, to run one token."""

    vector: float
    pair: float
    token: float


_SPEEDS: weakref.WeakKeyDictionary[Model, Speed] = weakref.WeakKeyDictionary()


def speed(model: Model) -> Speed:
    """Measured once per model: a product of some hundred vectors, and a short forward pass."""
    if model not in _SPEEDS:
        x = torch.randn(ROWS, model.d_model, dtype=model.wide, device=model.device)
        prompt = [i % model.d_vocab for i in range(min(TOKENS, model.max_tokens))]
        with torch.no_grad():
            k = min(50, model.d_vocab)
            vector = _seconds(lambda: read_tops(model, x, k)) / ROWS
            ids = read_tops(model, x, k).ids
            pair = _seconds(lambda: agreement(ids[:, None], ids[None, :8], ("intersection", "rbo"))) / (8 * ROWS)
        token = _seconds(lambda: list(capture_many(model, [prompt], PARTS))) / len(prompt)
        _SPEEDS[model] = Speed(vector, pair, token)
    return _SPEEDS[model]


def _seconds(call: Callable[[], object]) -> float:
    """The shorter of two runs: the first one warms up."""
    found = []
    for _ in range(2):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return min(found)


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
        "heads without W_O": each * model.n_heads * (asks("2a") and naive),
        "heads": each * model.n_heads * settings.heads_wanted(),
        "memory values": layers * model.n_heads * sum(settings.values_wanted(n) for n in seen),
        "queries": asks("19") * ((ways - naive) * turned + naive * each * model.n_heads),
        "keys": asks("19", "20") * ways * sources,
        "norms (Figures 7, 21 to 23, tables)": asks(*NORMS) * len(seen) * model.n_layers * 6,
    }
    if asks(*NEURONS) and not is_ready(model):
        found["all rows of the weights, once per model"] = 2 * model.n_layers * sum(matrices(model).values())
    return {name: int(number) for name, number in found.items() if number}


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


def forecast(model: Model, rows: Sequence[Row], settings: Settings | None = None) -> pd.DataFrame:
    """What a study of these prompts takes, a row per part, from a speed that is measured here and now (once a model).

    Columns: `part`, `vectors` (forward passes: tokens; comparisons: pairs), `products` (FLOP of the products with W_U;
    of the forward passes those with the blocks' weights), `seconds`. Where only correct answers are wanted it is an
    upper bound, for nobody knows yet how many there are. Source: ours.
    """
    settings = settled(settings or Settings(), model)
    lengths = [len(tokenize(model, row.prompt)) for row in rows]
    seen = [(settings.pos % n if -n <= settings.pos < n else n - 1) + 1 for n in lengths]
    own, tokens = speed(model), sum(lengths)
    passes = 1 + sum(settings.asks(*some) for some in (("7", "21", "22", "tables"), ("23", "tables"), NEURONS))
    flat = sum(p.numel() for p in model.blocks.parameters())
    table = [("forward passes", tokens * passes, 2 * flat * tokens * passes, own.token * tokens * passes)]
    for name, number in counts(model, seen, settings).items():
        table.append((name, number, 2 * number * model.d_model * model.d_vocab, own.vector * number))
    compared = pairs(model, seen, settings)
    table.append(("comparing words, in pairs", compared, 0, own.pair * compared))
    return pd.DataFrame(table, columns=["part", "vectors", "products", "seconds"])
