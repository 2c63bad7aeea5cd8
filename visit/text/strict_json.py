"""JSON as the standard has it: what Python reads besides (NaN, Infinity) is refused, half a sign is a "?".

A text can name half a sign ("\\ud83d"), of which Python makes one that no browser and no file can be sent.
"""

from __future__ import annotations

import json
import re
from typing import Any


def strict_json(text: str) -> Any:
    """What a JSON text holds. Raises ValueError for what is none, RecursionError for one nested too deep."""
    found = json.loads(text, parse_constant=_refused)
    if not re.search(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]", text):
        return found
    return json.loads(json.dumps(found, ensure_ascii=False).encode("utf-8", "replace"))


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
