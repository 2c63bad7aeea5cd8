"""Free memory goes back to the system: the C library would keep as much again as a class's results take.

Every run of a page is a thread. Under glibc up to eight arenas a core are filled by them in turn, and what is freed in
each stays there between what is kept (ten sessions of SmolLM2 on two cores: 0.8 GB in sixteen arenas).

1. `bound_heap`, at the start of a server and before torch: threads share two arenas, and MKL, which multiplies
   matrices, keeps no buffer of its own for each thread that ever did (10 MB, as long as the thread lives: thirty
   visitors who wait have 0.3 GB); it is no slower without.
2. Also there: what is larger than `LARGE` is mapped by itself, and the system's again when freed. Else glibc raises
   that bound to the largest block it has seen freed, and logits come to lie between small things. Who fixes it fixes
   the other bound, too: `STAYS` bytes at a heap's end stay for the next step (with glibc's 128 kB every step of a
   reading gave its block back and had it zeroed anew: a third of its time). And PyTorch asks for large pages.
3. `trim_heap`, after computations, at most once in `EVERY` seconds: free pages are the system's again.

Other C libraries keep less, and are left alone; so is a number of arenas that `MALLOC_ARENA_MAX` gives.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from functools import cache
from typing import Any

ARENAS = 2
EVERY = 1.5  # seconds
LARGE = 8 << 20  # bytes: what is made and freed step by step is smaller, and stays
STAYS = 12 << 20  # bytes
_M_ARENA_MAX, _M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -8, -3, -1  # of malloc.h
_trim_turn = threading.Lock()
_last = 0.0  # when it was given back


@cache
def glibc() -> Any:
    """The C library, where it is glibc; else None."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None


@cache
def bound_heap() -> bool:
    """Let all threads share few arenas; once a process, before torch. Returns whether it could be asked for."""
    os.environ.setdefault("MKL_DISABLE_FAST_MM", "1")
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # 25 MB of logits come in 12 faults, not in 6,000
    library = glibc()
    if library is None or "MALLOC_ARENA_MAX" in os.environ:
        return False
    wanted = {_M_MMAP_THRESHOLD: LARGE, _M_TRIM_THRESHOLD: STAYS, _M_ARENA_MAX: ARENAS}
    done = [library.mallopt(what, value) for what, value in wanted.items()]
    return all(done)


def trim_heap() -> None:
    """Give free pages back, unless that has just been done: it costs some hundredths of a second."""
    global _last
    library = glibc()
    if library is None or time.monotonic() - _last < EVERY or not _trim_turn.acquire(blocking=False):
        return
    try:
        library.malloc_trim(0)
        _last = time.monotonic()
    finally:
        _trim_turn.release()
