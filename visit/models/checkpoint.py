"""The weight files of a folder, judged by their headers alone: are they whole, and how much is in them? No torch."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from visit.errors import VisitError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_MEND = "Download or save the checkpoint again."


@dataclass(frozen=True)
class WeightFiles:
    """What the headers say: the files, and how many numbers they hold."""

    files: tuple[Path, ...]
    parameters: int


def inspect_weights(folder: Path) -> WeightFiles:
    """The weights of a folder written by `save_pretrained`, sharded or not.

    Raises `VisitError` for a folder without weights, with pickled ones only, with a shard missing or cut short.
    """
    if not (folder / "config.json").is_file():
        raise VisitError(
            f"The folder {str(folder)!r} is no model: it has no config.json. "
            "Give a folder written by save_pretrained, or a hub id such as 'openai-community/gpt2'."
        )
    files = weight_files(folder)
    return WeightFiles(files, sum(count for file in files for count in tensor_sizes(file).values()))


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files that hold the model: one, or the shards that the index names."""
    if (folder / WEIGHTS).is_file():
        return (folder / WEIGHTS,)
    if not (folder / INDEX).is_file():
        raise VisitError(_without_weights(folder))
    try:
        shards = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
        files = tuple(folder / Path(shard).name for shard in shards)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise VisitError(f"{INDEX} in {str(folder)!r} is no index of shards ({error}). {_MEND}") from error
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise VisitError(
            f"The checkpoint {str(folder)!r} is half there: {len(missing)} of its {len(files)} weight files are "
            f"missing ({', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}). {_MEND}"
        )
    return files


def _without_weights(folder: Path) -> str:
    pickled = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt"))
    others = sorted(p.name for p in folder.glob("*.safetensors"))
    found = f"only pickled weights ({', '.join(pickled[:3])})" if pickled else "no weights"
    if others:
        found = f"{', '.join(others[:3])}, but neither {WEIGHTS} nor {INDEX}"
    return (
        f"VISIT reads weights from .safetensors files only, which cannot run code; {str(folder)!r} has {found}. "
        "Convert them: model.save_pretrained(folder, safe_serialization=True)."
    )


def tensor_sizes(file: Path) -> dict[str, int]:
    """name → numbers of every tensor of a safetensors file; a file that is damaged is a `VisitError`."""
    try:
        with safe_open(file, "np") as weights:
            return {name: math.prod(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        why = next((why for sign, why in _DAMAGED.items() if sign in str(error)), "is no safetensors file")
        size = file.stat().st_size
        raise VisitError(
            f"The weights of {str(file.parent)!r} cannot be read: {file.name} {why.format(size=size)}. {_MEND}"
        ) from error


_SMALL = "has {size:,} bytes, less than its own header"
_DAMAGED = {  # in the words of safetensors
    "not fully covered": "is cut short (or too long): its {size:,} bytes are not those that its header names",
    "header too small": _SMALL, "header too large": _SMALL, "invalid header length": _SMALL,
}  # fmt: skip
