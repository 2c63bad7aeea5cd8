"""What memory the machine has left: the operating system's figure, or the container's limit where that is smaller."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from pathlib import Path

import psutil

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
        bound, used = _number(group / limit), _number(group / usage)
        if bound is not None and used is not None and bound < _NO_LIMIT:
            found.append(max(0, bound - used + _reclaimable(group, cache)))
    return found


def _number(file: Path) -> int | None:
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


def size_text(count: float) -> str:
    """Bytes in words: `1.4 GB`, `30.4 MB`."""
    if count >= 0.95e9:
        return f"{count / 1e9:,.1f} GB"
    return f"{count / 1e6:,.{0 if count >= 1e7 else 1}f} MB"


def return_freed_memory() -> None:
    """Let the C library give blocks of a megabyte and more back to the system as soon as they are freed.

    At half precision sums widen one weight after the other to float32; glibc kept those blocks in its heap (0.9 GB with
    a model whose weights are 0.7 GB), which took away what half precision is chosen for.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL("libc.so.6").mallopt(-3, 1 << 20)  # M_MMAP_THRESHOLD
