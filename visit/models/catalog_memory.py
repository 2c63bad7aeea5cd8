"""How much memory a model will need, known before any of it is loaded. No torch.

Counted: the weights in the type they are loaded in, one record of a prompt, and what a projection to the vocabulary
holds at once. Python, torch and the page are there already when a model is loaded; `PROGRAM` is what they take.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from visit.errors import VisitError
from visit.models.catalog import LISTED, MINI
from visit.models.machine import size_text

ITEM_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
TOKENS = 64  # of the prompt that a forecast is about
PROGRAM = 450 << 20  # Python, torch, transformers and Streamlit without a model: 0.43 GB were measured
_CHUNK = 3 * (64 << 20)  # a projection's logits, their softmax and the search for the largest (logit.CHUNK_BYTES)
_RESERVE = 150 << 20  # what must stay free: a machine without any memory left stops everything on it


class Dimensions(NamedTuple):
    """What the size of a record follows from."""

    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    d_vocab: int


@dataclass(frozen=True)
class Forecast:
    """Bytes that a model will take, in `dtype`, with one record of `tokens` tokens."""

    dtype: str
    tokens: int
    weights: int
    loading: int  # on top of the weights while they are read: the largest tensor in both types
    capture: int
    projection: int

    @property
    def total(self) -> int:
        """The most that is held at once: reading is over when the first prompt runs."""
        return self.weights + max(self.loading, self.capture + self.projection)


def forecast(parameters: int, size: Dimensions, dtype: str, tokens: int = TOKENS) -> Forecast:
    """What a model of so many `parameters` needs in `dtype`. Its largest tensor is taken to be the embedding."""
    item = ITEM_BYTES[dtype]
    loading = size.d_vocab * size.d_model * (item + 4)
    return Forecast(dtype, tokens, parameters * item, loading, record_bytes(size, tokens, item), _CHUNK)


def record_bytes(size: Dimensions, tokens: int, item: int) -> int:
    """Bytes of a whole record: up to nine streams, q, k, v, z, neurons and patterns per layer, and the logits."""
    heads = (2 * size.n_heads + 2 * size.n_kv_heads) * size.d_head
    per_layer = tokens * (9 * size.d_model + heads + size.d_mlp) + size.n_heads * tokens * tokens
    return (size.n_layers * per_layer + tokens * size.d_vocab) * item


def dimensions(config: Any, parameters: int) -> Dimensions:
    """Dimensions as a Hugging Face config has them, good enough for a forecast.

    The width of the MLP has another name in every family; what the weights leave room for is taken, which is at least
    as much: a block's parameters hold W_in and W_out, each d_model × d_mlp.
    """
    d_model, layers, heads = config.hidden_size, config.num_hidden_layers, config.num_attention_heads
    return Dimensions(
        n_layers=layers,
        n_heads=heads,
        n_kv_heads=getattr(config, "num_key_value_heads", None) or getattr(config, "num_kv_heads", None) or heads,
        d_model=d_model,
        d_head=getattr(config, "head_dim", None) or d_model // heads,
        d_mlp=max(d_model, parameters // max(1, layers) // (2 * d_model)),
        d_vocab=config.vocab_size,
    )


def choose_dtype(name: str, forecasts: list[Forecast], free: int, where: str = "memory") -> str:
    """The first forecast that fits into `free` bytes; none: a `VisitError` with the numbers and what fits instead."""
    for one in forecasts:
        if one.total + _RESERVE <= free:
            return one.dtype
    needs = " or ".join(f"{size_text(f.total)} in {f.dtype}" for f in forecasts)
    raise VisitError(
        f"{name!r} is not loaded: it needs {needs}, and {size_text(max(0, free - _RESERVE))} of {where} can be had. "
        + _offer(forecasts[-1], free)
    )


def _offer(least: Forecast, free: int) -> str:
    """What would fit: the same model at half precision, or the largest listed model."""
    offers = []
    half = least.total - least.weights + least.weights // ITEM_BYTES[least.dtype] * 2
    if ITEM_BYTES[least.dtype] > 2 and half + _RESERVE <= free:
        offers.append(f"dtype bfloat16 ({size_text(half)})")
    smaller = [n for n in LISTED if need(n) + _RESERVE <= free and LISTED[n].parameters < least.weights // 2]
    best = max(smaller, key=lambda n: LISTED[n].parameters, default=MINI)
    offers.append(f"{best} ({size_text(need(best))})")
    return f"Choose {' or '.join(offers)}, or free memory."


def need(name: str) -> int:
    """Bytes that a listed model takes in float32, the weights and a projection: what the chooser shows."""
    return LISTED[name].parameters * 4 + _CHUNK


def least(parameters: int) -> int:
    """Bytes that a model of so many parameters takes at least: at half precision, with a projection."""
    return parameters * 2 + _CHUNK + _RESERVE
