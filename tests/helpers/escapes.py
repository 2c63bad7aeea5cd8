"""What a reader sees of a text that a page escapes."""

from __future__ import annotations

import re


def as_read(text: str) -> str:
    """Markdown's escapes taken away."""
    return re.sub(r"\\(.)", r"\1", text).replace("\u2060", "")
