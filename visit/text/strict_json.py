"""JSON as the standard has it: what Python reads besides (NaN, Infinity) is refused."""

from __future__ import annotations

import json
from typing import Any


def strict_json(text: str) -> Any:
    """What a JSON text holds. Raises ValueError for what is none, RecursionError for one nested too deep."""
    return json.loads(text, parse_constant=_refused)


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
