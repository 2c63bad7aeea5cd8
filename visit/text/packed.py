"""A long query as one parameter: JSON, deflated, in the letters that an address may hold as they are.

What is read back comes from anybody: it may not unfold to more than an address can ask for (a few kilobytes of zeros
would fill the memory), and is fields with texts or nothing. A text with half a sign in it (JSON can name one) is none:
no browser can be sent it.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Mapping

PACKED_CHARACTERS = 50_000  # of what is read
UNPACKED_BYTES = 256 << 10  # of what it may be unfolded to: three prompts of 8,000 characters, all fields full


def packed(fields: Mapping[str, str]) -> str:
    """Fields as one text of letters, digits, `-` and `_`."""
    text = json.dumps(dict(fields), ensure_ascii=False, separators=(",", ":"))
    return base64.urlsafe_b64encode(zlib.compress(text.encode("utf-8", "surrogatepass"), 9)).decode().rstrip("=")


def unpacked(text: str) -> dict[str, str]:
    """The fields of a packed text. Raises `ValueError` for anything else, and for what is too large."""
    if len(text) > PACKED_CHARACTERS:
        raise ValueError(f"it has {len(text):,} characters; at most {PACKED_CHARACTERS:,} are read")
    try:
        unfolding = zlib.decompressobj()
        content = unfolding.decompress(base64.b64decode(text + "=" * (-len(text) % 4), b"-_", True), UNPACKED_BYTES)
        whole = unfolding.eof and not unfolding.unconsumed_tail and not unfolding.unused_data
        found = json.loads(content.decode("utf-8")) if whole else None
        json.dumps(found, ensure_ascii=False).encode("utf-8")
    except (ValueError, binascii.Error, zlib.error, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ValueError("it is cut off, damaged, or too large")
    return found
