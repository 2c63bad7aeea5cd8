"""The files of a folder, judged by their headers alone: are they whole, and how much is in them? No torch.

Whatever lies there was written by somebody else. Nothing is opened that is no file, and nothing that a header says is
believed before it is bounded: its own length, its shapes, and what the config makes of them.
"""

from __future__ import annotations

import json
import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError, safe_open

from visit.errors import VisitError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
READ = (".safetensors", ".json", ".gguf", ".model", ".txt", ".jinja")  # what a model or its tokenizer is read from
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "sentencepiece.bpe.model")
MAX_HEADER = 16 << 20  # bytes; a model of 100,000 tensors has 10 MB, and a reader takes 15 times as much memory
MAX_CONFIG = 16 << 20  # bytes of a config or an index
MAX_LAYERS = 10_000  # a config makes lists of this length before anybody can look at it
_MEND = "Download or save the checkpoint again."


# ---- what lies there -------------------------------------------------------------------------------------------------
def local_path(name: str) -> Path | None:
    """The folder or file of this machine that a name means; None where there is none, or none can have that name."""
    try:
        path = Path(name).expanduser()
        path.stat()  # a ring of links, a name that is too long, a folder that may not be looked into
    except (OSError, ValueError, RuntimeError):
        return None
    return path


def is_id(name: str) -> bool:
    """Whether a name has the form of a hub id, by the rules of the hub's own library."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def cached_at(name: str, revision: str | None = None) -> Path | None:
    """Where the hub's cache has a model, whole or not; None where it has none."""
    config = try_to_load_from_cache(name, "config.json", revision=revision) if is_id(name) else None
    return Path(config).parent if isinstance(config, str) else None


def readable_files(folder: Path) -> list[Path]:
    """The files of a folder that a model is read from, by name. No link that leads nowhere, no pipe, no folder."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in READ and file_fault(path) is None)


def check_files(folder: Path) -> None:
    """Refuse a folder in which something bears the name of a model's file and is none: opening a pipe never ends."""
    try:
        wrong = [(p.name, why) for p in sorted(folder.iterdir()) if p.suffix.lower() in READ and (why := file_fault(p))]
    except OSError as error:
        raise VisitError(f"The folder {str(folder)!r} cannot be read ({error.strerror or error}).") from error
    if wrong:
        name, why = wrong[0]
        raise VisitError(f"{name!r} in {str(folder)!r} is {why}, not a file. Remove it, or put the file there.")


def file_fault(path: Path) -> str | None:
    """What a directory's entry is, where it is no file that can be read; else None."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return "a link that leads nowhere" if path.is_symlink() else "something that cannot be looked at"
    if stat.S_ISREG(mode):
        return None if os.access(path, os.R_OK) else "closed to this user"
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def read_json(file: Path, what: str) -> dict[str, object]:
    """A JSON object of bounded size. A `VisitError` about `what`, the sentence's subject, where it is none."""
    try:
        if file.stat().st_size > MAX_CONFIG:
            raise VisitError(f"{what} is larger than {MAX_CONFIG >> 20} MB, which no such file is. {_MEND}")
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise VisitError(f"{what} is no JSON that can be read ({reason}). {_MEND}") from error
    if not isinstance(found, dict):
        raise VisitError(f"{what} is no JSON object; got a {type(found).__name__}. {_MEND}")
    return found


def check_config(folder: Path, name: str) -> None:
    """Refuse a config whose numbers cannot be those of a model, before any library makes lists or weights of them."""
    config = read_json(folder / "config.json", f"The config of {name!r}")
    for key, number in config.items():
        if "layer" not in key or isinstance(number, bool) or not isinstance(number, int):
            continue
        if number > MAX_LAYERS:
            raise VisitError(
                f"The config of {name!r} says {key} = {number:.3g}; VISIT reads models of up to {MAX_LAYERS:,} layers. "
                "Use the config.json that was saved with these weights."
            )


@dataclass(frozen=True)
class WeightFiles:
    """What the headers say: the files, and the shape of every tensor in them."""

    files: tuple[Path, ...]
    shapes: dict[str, tuple[int, ...]]

    @property
    def parameters(self) -> int:
        """How many numbers they hold."""
        return sum(map(math.prod, self.shapes.values()))


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
    return WeightFiles(files, {name: shape for file in files for name, shape in tensor_shapes(file).items()})


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files that hold the model: one, or the shards that the index names."""
    if (folder / WEIGHTS).is_file():
        return (folder / WEIGHTS,)
    if not (folder / INDEX).is_file():
        raise VisitError(_without_weights(folder))
    try:
        shards = sorted(set(read_json(folder / INDEX, "it")["weight_map"].values()))  # type: ignore[attr-defined]
        files = tuple(folder / Path(shard).name for shard in shards)
    except (VisitError, ValueError, KeyError, AttributeError, TypeError) as error:
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
    return {name: math.prod(shape) for name, shape in tensor_shapes(file).items()}


def tensor_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """name → shape of every tensor of a safetensors file; a file that is damaged is a `VisitError`."""
    size = file.stat().st_size
    with file.open("rb") as data:
        length = int.from_bytes(data.read(8), "little")
    if MAX_HEADER < length <= size:
        raise VisitError(
            f"The weights of {str(file.parent)!r} cannot be read: the header of {file.name} has {length:,} bytes, and "
            f"no model's has more than {MAX_HEADER:,}. {_MEND}"
        )
    try:
        with safe_open(file, "np") as weights:  # it checks types, shapes and offsets against each other
            return {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        why = next((why for sign, why in _DAMAGED.items() if sign in str(error)), "is no safetensors file")
        raise VisitError(
            f"The weights of {str(file.parent)!r} cannot be read: {file.name} {why.format(size=size)}. {_MEND}"
        ) from error


_SMALL = "has {size:,} bytes, less than its own header"
_DAMAGED = {  # in the words of safetensors
    "not fully covered": "is cut short (or too long): its {size:,} bytes are not those that its header names",
    "header too small": _SMALL, "header too large": _SMALL, "invalid header length": _SMALL,
}  # fmt: skip
