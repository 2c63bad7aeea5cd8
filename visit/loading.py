"""Reading a checkpoint: embedded, a local folder, or the hub. Safetensors only, never remote code."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

import psutil
import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as hf_logging

from visit.errors import VisitError
from visit.families import family_of
from visit.listed import MINI, MINI_FOLDER, check_hosted

HUB_SECONDS = 5.0  # how long the hub may take to answer before we say that it cannot be reached
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def read_checkpoint(
    name: str, revision: str | None, dtype: str | torch.dtype | None, device: str | None
) -> tuple[Any, Any, str]:
    """The Hugging Face model (eager attention, evaluation mode), its tokenizer, and the revision that was read."""
    check_hosted(name)
    folder = MINI_FOLDER if name == MINI else Path(name).expanduser()
    if name == MINI or folder.is_dir():
        _check_folder(folder)
        source, local, found = str(folder), True, fingerprint(folder)
    else:
        source = name
        local, found = _check_hub(name, revision)
    options: dict[str, Any] = {"revision": revision, "local_files_only": local, "trust_remote_code": False}
    config = _config(source, options)
    family_of(config)
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    kind = _dtype(dtype, config, where, folder if folder.is_dir() else None)
    hf = _weights(name, source, options, kind)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
    except Exception as error:
        raise VisitError(f"The tokenizer of {name!r} cannot be read: {_first_line(error)}") from error
    return hf.to(where).eval(), tokenizer, found


def _weights(name: str, source: str, options: dict[str, Any], dtype: torch.dtype) -> Any:
    hf_logging.disable_progress_bar()  # ours is the command line's standard error, and the app's own status
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, attn_implementation="eager", use_safetensors=True, output_loading_info=True, **options
        )
    except Exception as error:
        raise VisitError(
            f"The weights of {name!r} cannot be read: {_first_line(error)} VISIT reads safetensors files only."
        ) from error
    hf, report = loaded
    missing = sorted(report["missing_keys"])
    if missing:
        raise VisitError(
            f"The checkpoint {name!r} is incomplete: {len(missing)} of its model's weights are not in it "
            f"({', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}). Download or save it again."
        )
    return hf


def _config(source: str, options: dict[str, Any]) -> Any:
    try:
        return AutoConfig.from_pretrained(source, **options)
    except Exception as error:
        raise VisitError(f"The config of {source!r} is not one VISIT can read: {_first_line(error)}") from error


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise VisitError(
            f"The folder {str(folder)!r} is no model: it has no config.json. "
            "Give a folder written by save_pretrained, or a hub id such as 'openai-community/gpt2'."
        )
    if not list(folder.glob("*.safetensors")):
        pickled = [p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt")]
        found = f"only pickled weights ({', '.join(sorted(pickled)[:3])})" if pickled else "no weights"
        raise VisitError(
            f"VISIT reads weights from .safetensors files only, which cannot run code; {str(folder)!r} has {found}. "
            "Convert them: model.save_pretrained(folder, safe_serialization=True)."
        )


def _check_hub(name: str, revision: str | None) -> tuple[bool, str]:
    """Ask the hub for the model. Returns (read from the cache only, commit); unreachable and not cached: an error."""
    if not _HUB_ID.fullmatch(name) or name.startswith("."):
        raise VisitError(
            f"No folder {name!r} exists, and it is no hub id either (as 'openai-community/gpt2'). "
            "Check the path, or use the embedded model 'visit-mini'."
        )
    cached = isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str)
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes"):
        return _from_cache(name, cached, "HF_HUB_OFFLINE is set")
    try:
        info = HfApi().model_info(name, revision=revision, timeout=HUB_SECONDS)
    except (RepositoryNotFoundError, GatedRepoError, RevisionNotFoundError) as error:
        raise VisitError(
            f"The hub has no model {name!r} that you may read ({type(error).__name__}). Check the spelling; for a "
            "gated model accept its licence on the hub and set HF_TOKEN."
        ) from error
    except Exception as error:
        return _from_cache(name, cached, f"the Hugging Face hub did not answer ({type(error).__name__})")
    files = [s.rfilename for s in info.siblings or []]
    if not any(f.endswith(".safetensors") for f in files):
        raise VisitError(f"{name!r} has pickled weights only; VISIT reads .safetensors, which cannot run code.")
    return False, info.sha or ""


def _from_cache(name: str, cached: bool, why: str) -> tuple[bool, str]:
    if cached:
        return True, "from the local cache"
    raise VisitError(
        f"{name!r} is neither a folder nor in the local cache, and {why}. Connect to the network, "
        "give the path of a downloaded folder, or use the embedded model 'visit-mini'."
    )


def _dtype(wanted: str | torch.dtype | None, config: Any, device: str, folder: Path | None) -> torch.dtype:
    if isinstance(wanted, torch.dtype):
        return wanted
    if wanted is not None:
        if wanted not in _DTYPES:
            raise VisitError(f"The dtype must be one of {', '.join(_DTYPES)}; {wanted!r} came.")
        return _DTYPES[wanted]
    stored = getattr(config, "dtype", None) or torch.float32
    if device != "cpu":
        return stored if isinstance(stored, torch.dtype) else _DTYPES[str(stored).removeprefix("torch.")]
    if folder is None:
        return torch.float32
    parameters = sum(f.stat().st_size for f in folder.glob("*.safetensors")) / torch.empty((), dtype=stored).itemsize
    fits = parameters * 4 < 0.8 * psutil.virtual_memory().available
    return torch.float32 if fits else torch.bfloat16


def fingerprint(folder: Path) -> str:
    """A short hash of a folder's weights: sizes, headers and samples of every safetensors file."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}".encode())
        with file.open("rb") as data:
            for start in range(0, size, max(1 << 20, size // 16)):
                data.seek(start)
                digest.update(data.read(1 << 20))
    return "sha256:" + digest.hexdigest()[:12]


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    line = text[0] if text else type(error).__name__
    return line if line.endswith(".") else line + "."
