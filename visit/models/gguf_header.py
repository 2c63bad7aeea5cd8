"""The arrays of a GGUF file's header, counted before they are laid out: a claim costs eight bytes, its list gigabytes.

`gguf`'s reader makes an array of its own of every element, some hundred bytes each. So the header is walked first,
element by element as it lies in the file and without keeping any: how many keys and tensors it has, how many elements
their arrays have together, and whether each has room in the file.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from visit.errors import VisitError

MAX_ELEMENTS = 2_000_000  # of all arrays: more than two times what a vocabulary as large as Gemma's needs
MAX_ENTRIES = 100_000  # keys, and tensors
_STRING, _ARRAY = 8, 9  # kinds of a value
_WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # of the others, bytes
_COUNTS = 8  # where they stand in the file


def check_header(file: Path) -> None:
    """Refuse a header that claims more than a model can have, before anything is laid out.

    Raises `VisitError` for too many keys, tensors or elements, and for lists of lists. What ends before it should is
    left to the reader, which says so.
    """
    with file.open("rb") as data:
        size = file.stat().st_size
        if size < _COUNTS + 16:
            return
        with mmap.mmap(data.fileno(), 0, access=mmap.ACCESS_READ) as held:
            order = ">" if struct.unpack_from("<I", held, 4)[0] & 0xFFFF == 0 else "<"
            try:
                _walk(file.name, held, order)
            except struct.error:  # beyond the file's end
                return


def _walk(name: str, held: mmap.mmap, order: str) -> None:
    long, short = struct.Struct(f"{order}Q"), struct.Struct(f"{order}I")
    tensors, keys = struct.unpack_from(f"{order}QQ", held, _COUNTS)
    for what, count in (("tensors", tensors), ("keys", keys)):
        if count > MAX_ENTRIES:
            raise _refused(name, f"{count:,} {what}, where a model may have {MAX_ENTRIES:,}")
    at, elements = _COUNTS + 16, 0
    for _ in range(keys):
        at += 8 + long.unpack_from(held, at)[0]  # its name
        kind = short.unpack_from(held, at)[0]
        at, count = at + 4, 1
        if kind == _ARRAY:
            kind, count = short.unpack_from(held, at)[0], long.unpack_from(held, at + 4)[0]
            at += 12
            elements += count
        if kind == _ARRAY:
            raise _refused(name, "a list of lists, which no model needs")
        if elements > MAX_ELEMENTS:
            raise _refused(name, f"lists of {elements:,} elements, where a model may have {MAX_ELEMENTS:,}")
        if kind == _STRING:
            for _ in range(count):
                at += 8 + long.unpack_from(held, at)[0]
        elif kind in _WIDTHS:
            at += _WIDTHS[kind] * count
        else:
            return  # a kind that the reader does not know either


def _refused(name: str, claim: str) -> VisitError:
    return VisitError(
        f"{name!r} is no model that can be read: its header claims {claim}. Download it again, or take another file."
    )
