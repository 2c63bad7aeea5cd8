"""The Hugging Face hub and its cache on disk: which commit a name means, which files are needed, and fetching them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil
from huggingface_hub import HfApi, constants, hf_hub_download, scan_cache_dir, try_to_load_from_cache
from huggingface_hub.errors import (
    CacheNotFound,
    GatedRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import WeakFileLock

from visit.errors import VisitError
from visit.models import wheels
from visit.models.catalog import is_hosted
from visit.models.checkpoint import (
    READ,
    VOCABULARIES,
    WEIGHTS,
    cached_at,
    check_files,
    file_fault,
    inspect_weights,
    is_id,
    readable_files,
)
from visit.text.numbers import size_text

HUB_SECONDS = 5.0  # how long the hub may take to answer before we say that it cannot be reached
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_TOKENIZERS = (".json", ".txt", ".model")  # tokenizer.json, merges.txt, tokenizer.model, configs and the index


@dataclass(frozen=True)
class Remote:
    """A model on the hub: the commit that is meant, the files that are needed with their bytes, its parameters."""

    name: str
    commit: str
    files: dict[str, int]
    parameters: int | None

    @property
    def bytes(self) -> int:
        return sum(self.files.values())


def check_id(name: str) -> None:
    """Refuse what is neither a folder nor the form of a hub id."""
    if not is_id(name):
        shown = name if len(name) < 100 else f"{name[:100]}…"
        raise VisitError(
            f"No folder {shown!r} exists, and it is no hub id either (as 'openai-community/gpt2'). "
            "Check the path, or use the embedded model 'visit-mini'."
        )


def cached_folder(name: str, revision: str | None = None) -> Path | None:
    """The folder of a model that the hub's cache holds whole; None where it is absent or a part of it is missing."""
    folder = cached_at(name, revision)
    return None if folder is None or cache_fault(name, revision) else folder


def cache_fault(name: str, revision: str | None = None) -> str:
    """What is missing or damaged of a model in the hub's cache, in a sentence; empty where it is whole or absent.

    A download was stopped half-way, the disk has lost some of it, or the hub itself has it so.
    """
    folder = cached_at(name, revision)
    if folder is None:
        return ""
    try:
        check_files(folder)
        inspect_weights(folder)
        for file in readable_files(folder):
            if file.suffix == ".json":
                _check_json(file, file.stat().st_size, file.stat().st_mtime_ns)
        if not any((folder / file).is_file() for file in VOCABULARIES):
            raise VisitError(f"It has none of {', '.join(VOCABULARIES)}: its tokenizer is missing.")
    except (VisitError, OSError) as error:
        return str(error)
    return ""


@lru_cache(maxsize=256)
def _check_json(file: Path, _size: int, _changed: int) -> None:
    """Raise a `VisitError` for a damaged file, looked at once; one that raises is looked at again."""
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise VisitError(f"{file.name} is damaged ({error}).") from error


def look_up(name: str, revision: str | None = None) -> Remote:
    """Ask the hub for a model. A `VisitError` where it has none, has no safetensors of it, or cannot be reached."""
    check_id(name)
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes"):
        raise VisitError(_unreachable(name, "HF_HUB_OFFLINE is set"))
    try:
        info = HfApi().model_info(name, revision=revision, timeout=HUB_SECONDS, files_metadata=True)
    except (RepositoryNotFoundError, GatedRepoError, RevisionNotFoundError) as error:
        raise VisitError(
            f"The hub has no model {name!r} that you may read ({type(error).__name__}). Check the spelling; for a "
            "gated model accept its licence on the hub and set HF_TOKEN."
        ) from error
    except Exception as error:
        raise VisitError(_unreachable(name, f"the hub did not answer ({type(error).__name__})")) from error
    sizes = {s.rfilename: s.size or 0 for s in info.siblings or []}
    counted: Any = info.safetensors
    return Remote(name, info.sha or "", _needed(name, sizes), counted.total if counted else None)


def _unreachable(name: str, why: str) -> str:
    return (
        f"{name!r} is neither a folder nor whole in the local cache, and {why}. Connect to the network, "
        "give the path of a downloaded folder, or use the embedded model 'visit-mini'."
    )


def _needed(name: str, sizes: dict[str, int]) -> dict[str, int]:
    """The files of the top folder that loading reads: weights, configs, tokenizer."""
    if "config.json" not in sizes and "adapter_config.json" in sizes:
        raise VisitError(
            f"{name!r} is an adapter, not a whole model. Download it to a folder and give that folder; VISIT merges it "
            "into its base model."
        )
    weights = [WEIGHTS] if WEIGHTS in sizes else [f for f in sizes if _SHARD.fullmatch(f)]
    if not weights:
        raise VisitError(f"{name!r} has pickled weights only; VISIT reads .safetensors, which cannot run code.")
    others = [f for f in sizes if "/" not in f and f.endswith(_TOKENIZERS)]
    return {f: sizes[f] for f in [*others, *weights]}


def fetch_files(name: str, revision: str | None, files: list[str], bar: Any = None) -> Iterator[tuple[str, Path]]:
    """Download files one after the other and yield (file, where it lies). What the cache has whole is not.

    All come from the commit of the first file, config.json, so that a model is never mixed from two.
    `bar`: a class like tqdm that is told of the bytes.
    """
    lost = _remove_no_files(name)
    config = _fetched(name, "config.json", revision, bar, lost)
    yield "config.json", config
    for file in files:
        if file != "config.json":
            yield file, _fetched(name, file, config.parent.name, bar, lost)


def _fetched(name: str, file: str, revision: str | None, bar: Any, lost: set[str]) -> Path:
    """One file of the hub, fetched anew where the cache's is damaged: the hub's library asks for its name only."""
    had = try_to_load_from_cache(name, file, revision=revision)
    damaged = file in lost or (isinstance(had, str) and not is_whole(Path(had)))
    return Path(hf_hub_download(name, file, revision=revision, tqdm_class=bar, force_download=damaged))


def _remove_no_files(name: str) -> set[str]:
    """Remove what stands in a model's cache in place of a file (a pipe, a folder, a link to nothing); its names.

    The hub's library takes whatever exists under the name for the file.
    """
    lost = set()
    top = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type="model"), "snapshots")
    for entry in top.glob("*/*"):
        if entry.suffix.lower() in READ and file_fault(entry):
            with suppress(OSError):
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
                lost.add(entry.name)
    return lost


def is_whole(file: Path) -> bool:
    """Whether a file of the hub's cache is what its name there says: the SHA-256 sum of a large file, git's of a small.

    Where the cache has no links (Windows, often) its files have no such names, and all pass. The name is that of the
    first link's target: it may be a link itself, to a file that models share and whose name is another sum.
    """
    try:
        data = file.parent / os.readlink(file) if file.is_symlink() else file
        if re.fullmatch(r"[0-9a-f]{64}", data.name):
            return wheels.sum_of(data) == data.name
        if re.fullmatch(r"[0-9a-f]{40}", data.name):
            head = f"blob {data.stat().st_size}\0".encode()
            return hashlib.sha1(head + data.read_bytes(), usedforsecurity=False).hexdigest() == data.name
    except OSError:
        return False
    return True


# ---- the room that downloads may take on a hosted app ----------------------------------------------------------------
MAX_HOSTED = 8 << 30  # bytes of models of the hub on a hosted app's disk, for all visitors together
_IN_USE = 600.0  # seconds after its last change in which a model that is not whole may still be downloading


@contextmanager
def room_for(name: str, size: int) -> Iterator[None]:
    """Make room for a model of `size` bytes, and keep it as long as it is fetched: `make_room`, for one that begins.

    Several processes fetch at once. What another has still to fetch is in no file yet: each writes down what it was
    promised, and of two that ask at the same moment one looks first.
    """
    if not is_hosted():
        yield
        return
    folder = _promises()
    folder.mkdir(parents=True, exist_ok=True)
    mine = folder / f"{os.getpid()}-{repo_folder_name(repo_id=name, repo_type='model')}.json"
    with WeakFileLock(folder / "lock"):
        make_room(name, size)
        mine.write_text(json.dumps({"name": name, "size": size, "born": psutil.Process().create_time()}))
    try:
        yield
    finally:
        mine.unlink(missing_ok=True)


def _promises() -> Path:
    """Where it is written down; the hub's library leaves what lies there alone."""
    return Path(constants.HF_HUB_CACHE, ".locks", "visit-promises")


def _promised(name: str) -> dict[str, int]:
    """Bytes that other models will have, which are being fetched. What a process that is gone has left is removed."""
    found = {}
    for file in _promises().glob("*.json"):
        try:
            told = json.loads(file.read_text())
            if psutil.Process(int(file.name.partition("-")[0])).create_time() != told["born"]:
                raise ValueError("another process has its number")
            found[str(told["name"])] = int(told["size"])
        except (OSError, ValueError, KeyError, TypeError, psutil.Error):
            with suppress(OSError):
                file.unlink()
    return {other: size for other, size in found.items() if other != name}


def make_room(name: str, size: int) -> None:
    """On a hosted app: remove the models of the hub that were read longest ago, until one of `size` bytes fits.

    Any visitor can ask for every listed model. Raises `VisitError` for one that would not fit alone, or beside those
    that are being downloaded. The hub's library removes them: it knows which files several models share.
    """
    if not is_hosted():
        return
    if size > MAX_HOSTED:
        raise VisitError(
            f"{name!r} is not downloaded: it has {size_text(size)}, and this hosted app keeps models of "
            f"{size_text(MAX_HOSTED)} together. Choose a smaller model."
        )
    try:
        cache = scan_cache_dir(constants.HF_HUB_CACHE)
    except CacheNotFound:
        return
    still = time.time() - _IN_USE
    promised = _promised(name)
    found = [repo for repo in cache.repos if repo.repo_id not in (name, *promised) and repo.repo_type == "model"]
    coming = {repo_folder_name(repo_id=other, repo_type="model") for other in promised}
    parts = [part.file_path for part in cache.incomplete_files if not coming & set(part.file_path.parts)]
    held = sum(repo.size_on_disk for repo in found) + sum(_kept_part(part, still) for part in parts)
    held += sum(promised.values())
    for repo in sorted(found, key=lambda repo: repo.last_accessed):
        if held + size <= MAX_HOSTED:
            return
        if repo.last_modified < still or cached_folder(repo.repo_id) is not None:
            commits = [revision.commit_hash for revision in repo.revisions]
            replace(cache, repos=frozenset([repo])).delete_revisions(*commits).execute()
            held -= repo.size_on_disk
    if held + size > MAX_HOSTED:
        raise VisitError(
            f"{name!r} is not downloaded: this hosted app keeps models of {size_text(MAX_HOSTED)} together, and others "
            "are being downloaded. Try again in some minutes, or choose a smaller model."
        )


def _kept_part(file: Path, still: float) -> int:
    """Bytes of a file that is being downloaded; one that nothing was written to after `still` is removed: 0."""
    with suppress(OSError):
        if file.stat().st_mtime >= still:
            return file.stat().st_size
        file.unlink()
    return 0
