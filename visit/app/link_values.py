"""How a value of an address is read: one parser a form, and the types of fields that are read by it.

An address comes from anybody: a parser returns a value that can be used, None for the field's default, or raises an
error that says what the value must be.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

from visit.errors import VisitError
from visit.models.catalog import check_hosted
from visit.text.visible import visible

PROMPT_CHARACTERS = 8_000
FIELD_CHARACTERS = 4_000  # of every other field: a hundred pinned nodes
# the last b: a node that only prompt B has (visit.analyses.graph_difference)
NODE_ID = r"(L\d{1,4}(-\d{1,4})?(\.[a-z_]{1,20}\d{0,6}){1,2}(\.rest|\.gate|\.up)?b?|ln_final|logits)"
_RANGES = r"\d{1,4}(-\d{1,4})?(\s*,\s*\d{1,4}(-\d{1,4})?)*"


def short_text(text: str) -> str:
    if len(text) > 200:
        raise ValueError("it is longer than 200 characters")
    return text


def prompt_text(text: str) -> str:
    if len(text) > PROMPT_CHARACTERS:
        raise ValueError(f"it has {len(text):,} characters; at most {PROMPT_CHARACTERS:,} are read from a link")
    return text


def model_name(text: str) -> str:
    check_hosted(text)
    if len(text) > 300 or not text.strip() or not text.isprintable():
        raise ValueError("it is no name of a model")
    return text


def other_model_name(text: str) -> str:
    return model_name(text) if text else ""


def of_form(pattern: str, refusal: str) -> Callable[[str], str]:
    """Reads a text of this form, or none."""

    def read(text: str) -> str:
        if len(text) > FIELD_CHARACTERS:
            raise ValueError(f"it is longer than {FIELD_CHARACTERS:,} characters")
        text = text.strip()
        if text and not re.fullmatch(pattern, text, re.ASCII):
            raise ValueError(refusal.format(visible(text[:30])))
        return text

    return read


def whole_number(refusal: str, pattern: str = r"\d{1,6}") -> Callable[[str], int | None]:
    """Reads a whole number, or none for the default."""

    def read(text: str) -> int | None:
        if text and not re.fullmatch(pattern, text, re.ASCII):
            raise ValueError(refusal.format(visible(text[:30])))
        return int(text) if text else None

    return read


def whole_within(least: int, most: int) -> Callable[[str], int | None]:
    """Reads a whole number between two, or none for the default."""

    def read(text: str) -> int | None:
        found = whole_number(f"it is a whole number from {least} to {most}")(text)
        if found is not None and not least <= found <= most:
            raise ValueError(f"it is a whole number from {least} to {most}")
        return found

    return read


def decimal(text: str) -> float | None:
    """Reads a decimal above 0, or none for the default."""
    if text and not (re.fullmatch(r"\d{1,3}(\.\d{1,3})?", text, re.ASCII) and float(text) > 0):
        raise ValueError(f"“{visible(text[:30])}” is no number above 0 and below 1,000")
    return float(text) if text else None


def one_of(values: tuple[str, ...]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in values:
            raise ValueError(f"it is one of {', '.join(values)}")
        return text

    return read


def on_or_off(text: str) -> bool:
    if text not in ("", "1"):
        raise ValueError("it is 1 or nothing")
    return text == "1"


def amount(text: str) -> Any:
    """A pruning amount as written in a field: "12", "80 %" or "0.8" (a share), "6,6" (positive, negative), "all"."""
    text = text.strip().lower()
    if text in ("all", ""):
        return None
    if re.fullmatch(r"\d{1,6}", text, re.ASCII):
        return int(text)
    if pair := re.fullmatch(r"(\d{1,6})\s*,\s*(\d{1,6})", text, re.ASCII):
        return int(pair[1]), int(pair[2])
    if share := re.fullmatch(r"(\d{1,3}(?:\.\d{1,6})?)\s*(%?)", text, re.ASCII):
        part = float(share[1]) / (100 if share[2] else 1)
        if 0 < part <= 1:
            return part
    raise VisitError(f"An amount is a number, a share such as 80 %, a pair such as 6,6, or all; got “{text[:30]}”")


def amount_text(text: str) -> str:
    amount(short_text(text))
    return text.strip()


ModelName = Annotated[str, model_name]
PromptText = Annotated[str, prompt_text]
Position = Annotated[int, whole_number("“{}” is no position; positions are whole numbers", r"-?\d{1,6}")]
Positive = Annotated[int, whole_number("it is a whole number from 1", r"(?!0+$)\d{1,6}")]
Amount = Annotated[str, amount_text]
Ranges = Annotated[str, of_form(_RANGES, "“{}” is no list of layers; write 3, 3-5 or 0,3,7-9")]
NodeText = Annotated[str, of_form(NODE_ID, "it is no node; nodes look like L3.head5")]
