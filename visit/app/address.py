"""The state of a page as an address: read from the URL, validated here, and written back. No Streamlit, no torch.

A URL comes from anybody: a value that cannot be used is replaced by its default, and a note says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from visit.errors import VisitError
from visit.models.catalog import MINI, check_hosted
from visit.text.visible import visible

PROMPT_CHARACTERS = 8_000
DEFAULT_PROMPT = "The capital of Japan is the city of"
DEFAULT_PROMPT_B = "The capital of France is the city of"
# the last b: a node that only prompt B has (visit.analyses.graph_difference)
_NODE = re.compile(r"(L\d{1,4}(-\d{1,4})?(\.[a-z_]+\d*){1,2}(\.rest|\.gate|\.up)?b?|ln_final|logits)")


@dataclass(frozen=True)
class State:
    """What a page shows. Every field has a default and is left out of the URL while it has it."""

    model: str = MINI
    prompt: str = DEFAULT_PROMPT
    chat: str = ""
    system: str = ""
    pos: int = -1
    target: str = ""
    distractor: str = ""
    layers: str = ""
    heads: str = "all"
    values: str = "2"
    neurons: str = "12"
    rows: str = "12"
    by: str = "norm"
    pin: str = ""
    detail: str = ""
    color: str = "rank"
    width: str = "norm"
    sort: str = "norm"
    parts: str = "both"
    node: str = ""
    whole: str = ""
    prompt_b: str = DEFAULT_PROMPT_B
    model_b: str = ""
    pos_b: int = -1
    target_b: str = ""
    distractor_b: str = ""
    align: str = ""
    view: str = "graphs"
    apart: str = "js"
    head: str = ""
    measure: str = "contribution"
    order: str = "moved"
    sink: str = "shown"
    gain: str = "plain"
    source: str = ""
    life: str = "own"
    norm: str = "ln1"
    layer: str = ""
    lens: str = "auto"
    mean: str = "probabilities"
    set: str = "facts"
    answered: str = ""
    neuron: str = ""
    kind: str = "mlp"
    nsort: str = "norm"
    activity: str = "activation"
    nshare: str = "2.44"
    word: str = ""
    figures: str = ""
    count: str = "100"
    correct: str = "split"
    k: str = "50"
    blocks: str = ""
    ranks: str = ""
    sources: str = "3"
    second: str = "rbo"
    draws: str = "1000"
    seed: str = "0"


def parse(params: Mapping[str, str]) -> tuple[State, list[str]]:
    """(state, notes): one note for every value that could not be used."""
    found: dict[str, Any] = {}
    notes = []
    for field in fields(State):
        text = params.get(field.name)
        if text is None:
            continue
        try:
            found[field.name] = _READ.get(field.name, _short)(str(text))
        except (ValueError, VisitError) as problem:
            default = getattr(State(), field.name)
            shown = f"“{default}”" if default not in ("", -1) else "the default"
            notes.append(f"The link's “{field.name}” cannot be used ({problem}); {shown} is shown instead.")
    return replace(State(), **found), notes


def to_params(state: State) -> dict[str, str]:
    """The shortest query that gives the state back."""
    default = State()
    found = {
        f.name: str(getattr(state, f.name)) for f in fields(State) if getattr(state, f.name) != getattr(default, f.name)
    }
    return {n: v for n, v in found.items() if not n.startswith("prompt") or len(v) <= PROMPT_CHARACTERS}


def amount(text: str) -> Any:
    """A pruning amount as written in a field: "12", "80 %" or "0.8" (a share), "6,6" (positive, negative), "all"."""
    text = text.strip().lower()
    if text in ("all", ""):
        return None
    if "," in text:
        parts = [p.strip() for p in text.split(",")]
        if len(parts) == 2 and all(_whole(p) for p in parts):
            return int(parts[0]), int(parts[1])
    elif text.endswith("%"):
        number = text[:-1].strip()
        if _decimal(number) and 0 < float(number) <= 100:
            return float(number) / 100
    elif _whole(text):
        return int(text)
    elif _decimal(text) and 0 < float(text) <= 1:
        return float(text)
    raise VisitError(f"An amount is a number, a share such as 80 %, a pair such as 6,6, or all; “{text[:30]}” came")


def levels(text: str, layers: list[int], default: Mapping[int, str]) -> dict[int, Any]:
    """The level of detail of every layer: a word for all, `3w,5e` for some (the others folded), empty the default."""
    if not text:
        return dict(default)
    if text in _LEVELS.values():
        return dict.fromkeys(layers, text)
    opened = {int(part[:-1]): _LEVELS[part[-1]] for part in text.split(",")}
    return {layer: opened.get(layer, "states") for layer in layers}


def level_text(found: dict[int, str]) -> str:
    """The shortest text that `levels` reads back as `found`."""
    kinds = set(found.values())
    if len(kinds) == 1:
        return kinds.pop()
    return ",".join(f"{layer}{level[0]}" for layer, level in sorted(found.items()) if level != "states")


_LEVELS = {"s": "states", "w": "words", "e": "everything"}


def _whole(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 6


def _decimal(text: str) -> bool:
    return re.fullmatch(r"\d{1,3}(\.\d{1,6})?", text, re.ASCII) is not None


def _amount(text: str) -> str:
    amount(text)
    return text.strip()


def _model(text: str) -> str:
    check_hosted(text)
    if len(text) > 300 or not text.strip() or not text.isprintable():
        raise ValueError("it is no name of a model")
    return text


def _prompt(text: str) -> str:
    if len(text) > PROMPT_CHARACTERS:
        raise ValueError(f"it has {len(text):,} characters; at most {PROMPT_CHARACTERS:,} are read from a link")
    return text


def _short(text: str) -> str:
    if len(text) > 200:
        raise ValueError("it is longer than 200 characters")
    return text


def _pos(text: str) -> int:
    if not re.fullmatch(r"-?\d{1,6}", text, re.ASCII):
        raise ValueError(f"“{visible(text[:30])}” is no position; positions are whole numbers")
    return int(text)


def _layers(text: str) -> str:
    if text and not re.fullmatch(r"\d{1,4}(-\d{1,4})?(\s*,\s*\d{1,4}(-\d{1,4})?)*", text.strip(), re.ASCII):
        raise ValueError(f"“{visible(text[:30])}” is no list of layers; write 3, 3-5 or 0,3,7-9")
    return text.strip()


CHOICES: dict[str, tuple[str, ...]] = {
    "chat": ("", "1"),
    "by": ("norm", "contribution", "pattern"),
    "color": ("rank", "probability", "entropy", "contribution"),
    "width": ("norm", "contribution"),
    "sort": ("norm", "contribution", "index"),
    "parts": ("both", "attention", "mlp"),
    "whole": ("", "1"),
    "view": ("graphs", "difference"),
    "apart": ("js", "apart", "cosine", "cosine_centred"),
    "measure": (
        "contribution",
        "norm",
        "share",
        "intersection_attn_out",
        "intersection_block",
        "intersection_final",
        "rank",
    ),
    "order": ("moved", "pattern", "contribution", "source_pos"),
    "sink": ("shown", "aside"),
    "gain": ("plain", "folded"),
    "life": ("own", "head"),
    "norm": ("ln1", "post_attn", "ln2", "post_mlp", "final"),
    "lens": ("auto", "without"),
    "mean": ("probabilities", "vector"),
    "set": ("facts", "names", "plain", "repeats", "world", "own"),
    "answered": ("", "1"),
    "kind": ("mlp", "attention"),
    "nsort": ("norm", "contribution", "coefficient"),
    "activity": ("activation", "weighted"),
    "nshare": ("1", "2.44", "5", "10"),
    "count": ("20", "50", "100", "200", "500", "all"),
    "correct": ("split", "only", "all"),
    "second": ("rbo", "none"),
}


def _one_of(choices: tuple[str, ...]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"it is one of {', '.join(choices)}")
        return text

    return read


def _model_b(text: str) -> str:
    return _model(text) if text else ""


def _align(text: str) -> str:
    if not re.fullmatch(r"((\d{1,6}:\d{0,6}|:\d{1,6})(,|$)){0,200}", text, re.ASCII):
        raise ValueError("corrections of the alignment are written 3:5,4:,:6")
    return text.rstrip(",")


def _pin(text: str) -> str:
    pins = [p for p in text.split(",") if p]
    if len(pins) > 100 or not all(_NODE.fullmatch(p.removeprefix("-")) for p in pins):
        raise ValueError("it is no list of nodes; nodes look like L3.head5")
    return ",".join(pins)


def _head(text: str) -> str:
    if text and not re.fullmatch(r"L\d{1,4}\.head\d{1,4}", text, re.ASCII):
        raise ValueError("it is no head; heads look like L4.head1")
    return text


def _neuron(text: str) -> str:
    if text and not re.fullmatch(r"L\d{1,4}\.mlp_value\d{1,6}", text, re.ASCII):
        raise ValueError("it is no neuron; neurons look like L3.mlp_value17")
    return text


def _number(what: str) -> Callable[[str], str]:
    """A whole number from 0, of up to six digits, or nothing; a refusal calls it `what`."""

    def read(text: str) -> str:
        if text and not re.fullmatch(r"\d{1,6}", text, re.ASCII):
            raise ValueError(f"it is no {what}; {what}s are whole numbers from 0")
        return text

    return read


def _figures(text: str) -> str:
    if text and not re.fullmatch(r"(\d{1,2}[ab]?|tables)(,(\d{1,2}[ab]?|tables)){0,40}", text, re.ASCII):
        raise ValueError("figures are listed as 2b,5,tables")
    return text


def _positive(text: str) -> str:
    if not _whole(text) or int(text) < 1:
        raise ValueError("it is a whole number from 1")
    return text


def _node(text: str) -> str:
    if text and not _NODE.fullmatch(text):
        raise ValueError("it is no node; nodes look like L3.head5")
    return text


def _detail(text: str) -> str:
    if text and not re.fullmatch(r"(states|words|everything)|(\d{1,4}[swe])(,\d{1,4}[swe])*", text, re.ASCII):
        raise ValueError("it is states, words, everything, or per layer such as 3w,5e")
    return text


_READ: dict[str, Callable[[str], Any]] = {
    "model": _model, "prompt": _prompt, "pos": _pos, "model_b": _model_b, "prompt_b": _prompt, "pos_b": _pos,
    "system": _prompt, "align": _align, "head": _head, "source": _number("position"), "layer": _number("layer"),
    "neuron": _neuron, "layers": _layers, "node": _node, "pin": _pin, "detail": _detail,
    "figures": _figures, "blocks": _layers, "k": _positive, "ranks": lambda text: text and _positive(text),
    "sources": _positive, "draws": _positive, "seed": _number("seed"),
    "heads": _amount, "values": _amount, "neurons": _amount, "rows": _amount,
    **{name: _one_of(choices) for name, choices in CHOICES.items()},
}  # fmt: skip
