"""The weight files of a folder, judged by their headers alone: are they whole, and how much is in them? No torch."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visit.errors import VisitError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_HEADER_BYTES = 100 << 20  # the format's own bound
_MEND = "Download or save the checkpoint again."


@dataclass(frozen=True)
class Checkpoint:
    """What the headers say: the files, how many numbers they hold, and in how many bytes."""

    files: tuple[Path, ...]
    parameters: int
    bytes: int


def inspect(folder: Path) -> Checkpoint:
    """The weights of a folder written by `save_pretrained`, sharded or not.

    Raises `VisitError` for a folder without weights, with pickled ones only, with a shard missing or cut short.
    """
    if not (folder / "config.json").is_file():
        raise VisitError(
            f"The folder {str(folder)!r} is no model: it has no config.json. "
            "Give a folder written by save_pretrained, or a hub id such as 'openai-community/gpt2'."
        )
    files = weight_files(folder)
    sizes = [size for file in files for size in tensor_sizes(file).values()]
    return Checkpoint(files, sum(count for count, _ in sizes), sum(size for _, size in sizes))


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


def tensor_sizes(file: Path) -> dict[str, tuple[int, int]]:
    """name → (numbers, bytes) of every tensor of a safetensors file; a file that is damaged is a `VisitError`."""
    header, room = read_header(file)
    sizes, end = {}, 0
    try:
        for name, about in header.items():
            if name != "__metadata__":
                first, last = about["data_offsets"]
                sizes[name], end = (math.prod(about["shape"]), last - first), max(end, last)
    except (KeyError, TypeError, ValueError) as error:
        raise VisitError(f"{file.name} is no safetensors file: its header is damaged. {_MEND}") from error
    if end > room:
        raise VisitError(
            f"The weights of {str(file.parent)!r} cannot be read: {file.name} is cut short, {room:,} of its {end:,} "
            f"bytes of numbers are there. {_MEND}"
        )
    return sizes


def read_header(file: Path) -> tuple[dict[str, Any], int]:
    """(the header, the bytes of numbers that follow it) of a safetensors file."""
    size = file.stat().st_size
    with file.open("rb") as data:
        length = int.from_bytes(data.read(8), "little")
        if size < 8 or length > min(size - 8, _HEADER_BYTES):
            raise VisitError(
                f"The weights of {str(file.parent)!r} cannot be read: {file.name} has {size:,} bytes, less than its "
                f"own header. {_MEND}"
            )
        try:
            header = json.loads(data.read(length))
        except ValueError as error:
            raise VisitError(
                f"The weights of {str(file.parent)!r} cannot be read: {file.name} is no safetensors file. {_MEND}"
            ) from error
    if not isinstance(header, dict):
        raise VisitError(f"The weights of {str(file.parent)!r} cannot be read: {file.name} is no safetensors file.")
    return header, size - 8 - length
