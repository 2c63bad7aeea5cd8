"""The Hugging Face hub and its cache on disk: which commit a name means, which files are needed, and fetching them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from visit.errors import VisitError
from visit.models.checkpoint import WEIGHTS, inspect

HUB_SECONDS = 5.0  # how long the hub may take to answer before we say that it cannot be reached
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
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
    if not _HUB_ID.fullmatch(name) or name.startswith("."):
        raise VisitError(
            f"No folder {name!r} exists, and it is no hub id either (as 'openai-community/gpt2'). "
            "Check the path, or use the embedded model 'visit-mini'."
        )


def cached_folder(name: str, revision: str | None = None) -> Path | None:
    """The folder of a model that the hub's cache holds whole; None where it is absent or a part of it is missing."""
    if not _HUB_ID.fullmatch(name) or name.startswith("."):
        return None
    config = try_to_load_from_cache(name, "config.json", revision=revision)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    try:
        inspect(folder)
    except VisitError:  # a download was stopped half-way
        return None
    return folder


def ask(name: str, revision: str | None = None) -> Remote:
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


def fetch(name: str, revision: str | None, files: list[str], bar: Any = None) -> Iterator[tuple[str, Path]]:
    """Download files one after the other and yield (file, where it lies). What the cache has is not fetched again.

    All come from the commit of the first file, config.json, so that a model is never mixed from two.
    `bar`: a class like tqdm that is told of the bytes.
    """
    config = Path(hf_hub_download(name, "config.json", revision=revision, tqdm_class=bar))
    yield "config.json", config
    for file in files:
        if file != "config.json":
            path = hf_hub_download(name, file, revision=config.parent.name, tqdm_class=bar)
            yield file, Path(path)


def is_commit(revision: str | None) -> bool:
    return revision is not None and _COMMIT.fullmatch(revision) is not None
