"""A name of a model made of its weights: every byte that computes, hashed once a model, whoever asks."""

from __future__ import annotations

import hashlib
import json
import threading
import weakref

import torch

from visit.models.model import Model

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
