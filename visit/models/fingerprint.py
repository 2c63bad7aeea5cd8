"""Which weights a number is of: the files they were read from, looked up at every use, and a hash of those in RAM."""

from __future__ import annotations

import hashlib
import json
import threading
import weakref

import torch

from visit.errors import VisitError
from visit.models import wheels
from visit.models.catalog import MINI
from visit.models.checkpoint import cached_at, local_path, read_json, readable_files
from visit.models.model import Model

Stamp = tuple[tuple[str, int, int], ...]  # (file, bytes, nanoseconds of its last change)
ADAPTER = "adapter_config.json"


def stamp(name: str) -> Stamp:
    """The files that a name's model is read from; of an adapter in a folder, those of its base too. None is opened.

    Of a model of the hub those in its cache, which another download may have moved to another commit. Empty for
    visit-mini, which does not change, and where nothing is there.
    """
    if name == MINI:
        return ()
    try:
        path = wheels.find(name) or local_path(name) or cached_at(name)
        if path is None:
            return ()
        files = [path] if path.is_file() else readable_files(path)
        found = [(str(file), (about := file.stat()).st_size, about.st_mtime_ns) for file in files]
        if (path / ADAPTER) in files:
            base = str(read_json(path / ADAPTER, ADAPTER)["base_model_name_or_path"])
            beside = path / base
            found += stamp(str(beside) if (beside / "config.json").is_file() else base)
    except (OSError, ValueError, LookupError, RecursionError, VisitError):  # loading says what is wrong with it
        return ()
    return tuple(found)


_KNOWN: weakref.WeakKeyDictionary[Model, str] = weakref.WeakKeyDictionary()
_LOCK = threading.Lock()


def fingerprint(model: Model) -> str:
    """32 hexadecimal digits of all that computes: the weights in memory, every byte of them, config and tokenizer.

    A name and a revision do not tell two models without files apart, say nothing of the type that was loaded, and
    results outlive the weights on disk. Equal weights under two names have one fingerprint.
    """
    with _LOCK:
        if model not in _KNOWN:
            config = {k: v for k, v in model.hf.config.to_dict().items() if k[0] != "_" and k != "transformers_version"}
            digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
            backend = getattr(model.tokenizer, "backend_tokenizer", None)
            digest.update((repr(model.vocabulary) if backend is None else backend.to_str()).encode())
            for name, tensor in model.hf.state_dict().items():
                digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
                digest.update(tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy().data)
            _KNOWN[model] = digest.hexdigest()[:32]
        return _KNOWN[model]
