"""GGUF files: one file that holds a model's quantised weights, its config and its tokenizer.

How a file is read, in four steps:
1. Which file a path means, and whether it can be read at all, by its header (`gguf`'s reader): magic, architecture,
   types of the tensors, whether all their bytes are there.
2. Config and tokenizer, by transformers' readers of GGUF; what its table leaves out and the file says is added, and
   what it would drop without a word is refused.
3. Which weight of the model each tensor is, by the two libraries' tables of names. Steps 2 and 3 take seconds, so
   their result (a few MB, never weights) stays in the cache folder under a name made of the file's content.
4. The weights: each tensor is dequantised to float32 by `gguf.quants` and brought into the model's layout by
   transformers' processors at the moment it is put into its place, so that the file is held in memory only once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoTokenizer

from visit.cache import cache_folder
from visit.errors import VisitError
from visit.models.gguf_header import check_header
from visit.models.load_weights import first_line, quiet

# what transformers' table of GGUF configs and VISIT's families share
ARCHITECTURES = (
    "llama", "mistral", "qwen2", "qwen3", "falcon", "bloom", "stablelm", "gpt2", "gemma2", "gemma3",
)  # fmt: skip
VERSION = 1  # of what is kept in the cache folder
_HEAD_BYTES = 64 << 20  # of the file that name its cached header: all keys, token lists and the table of tensors
_STEP_BYTES = 1 << 20  # of the file that are turned into numbers at once
_PLAIN = ("F32", "F16", "BF16", "F64")
_SPLIT = re.compile(r"-\d{5}-of-(\d{5})\.gguf$", re.IGNORECASE)
_LOG = logging.getLogger("visit")
_SAID: set[str] = set()  # folders of which it was said that they cannot be written


@dataclass(frozen=True)
class Stored:
    """One tensor of the file: its name there, the weight that it is, its type, its shape (rows first), its bytes."""

    name: str
    weight: str
    type: str
    shape: tuple[int, ...]
    offset: int
    bytes: int


@dataclass(frozen=True)
class Header:
    """What a file says of itself. `folder` holds config.json and the tokenizer; `facts` are what processors need."""

    file: Path
    folder: Path
    quantization: str
    dtype: str
    architecture: str
    facts: dict[str, Any]
    tensors: tuple[Stored, ...]

    @property
    def parameters(self) -> int:
        return sum(int(np.prod(tensor.shape)) for tensor in self.tensors)


def find_file(path: Path) -> Path | None:
    """The GGUF file that a path means: a file, or the only one of a folder without other weights. None: neither.

    Raises `VisitError` for a folder with several of them, which names them, and for a model split over files.
    """
    if path.is_file():
        return path
    if not path.is_dir() or (path / "config.json").is_file() or (path / "adapter_config.json").is_file():
        return None
    files = sorted(p for p in path.iterdir() if p.suffix.lower() == ".gguf")
    if not files:
        return None
    if len(files) > 1 and not _SPLIT.search(files[0].name):
        raise VisitError(
            f"The folder {str(path)!r} has {len(files)} GGUF files ({', '.join(f.name for f in files[:6])}"
            f"{', …' if len(files) > 6 else ''}), each a model or a part of one. Give the path of the one to read."
        )
    return files[0]


def content_key(file: Path) -> str:
    """A short hash of a file: its size, its first 64 MB (the header is in them) and samples of the rest."""
    size, digest = file.stat().st_size, hashlib.sha256()
    digest.update(str(size).encode())
    with file.open("rb") as data:
        digest.update(data.read(_HEAD_BYTES))
        for start in range(_HEAD_BYTES, size, max(1 << 20, size // 16)):
            data.seek(start)
            digest.update(data.read(1 << 20))
    return digest.hexdigest()[:12]


@contextmanager
def opened(file: Path) -> Iterator[Header]:
    """The header of a GGUF file; its folder is there as long as the block lasts (longer where it is cached).

    Raises `VisitError` for a file that is no GGUF file, that is cut short, or that cannot be read exactly.
    """
    _check_magic(file)
    kind = f"{VERSION} {transformers.__version__} {content_key(file)}"
    place = cache_folder() / "gguf" / hashlib.sha256(kind.encode()).hexdigest()[:24]
    if (known := _kept_folder(file, place)) is not None:
        yield known
        return
    with tempfile.TemporaryDirectory(prefix="visit-gguf-") as scratch:
        folder = Path(scratch)
        header = _make(file, folder)
        yield _kept_folder(file, place) or header if _move_into_cache(folder, place) else header


def _kept_folder(file: Path, place: Path) -> Header | None:
    """The header as the cache folder has it, None where there is none, or one that is damaged."""
    try:
        about = json.loads((place / "gguf.json").read_text(encoding="utf-8"))
        tensors = tuple(Stored(**{**row, "shape": tuple(row["shape"])}) for row in about.pop("tensors"))
        found = Header(file=file, folder=place, tensors=tensors, **about)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return found if (place / "config.json").is_file() else None


def _move_into_cache(folder: Path, place: Path) -> bool:
    """Put what was made into the cache folder, as a whole or not at all; False where it cannot be written."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(dir=place.parent, prefix="new-"))
        try:
            shutil.copytree(folder, beside, dirs_exist_ok=True)
            shutil.rmtree(place, ignore_errors=True)
            os.replace(beside, place)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        if str(place.parent) not in _SAID:
            _SAID.add(str(place.parent))
            _LOG.warning(
                "visit: The cache folder %s cannot be written (%s): config and tokenizer of a GGUF file are read out "
                "of it again at every load, which takes seconds. Set VISIT_CACHE to a folder that can be written.",
                place.parent, error.strerror or error,
            )  # fmt: skip
        return (place / "gguf.json").is_file()  # another process was quicker
    return True


# ---- step 1: can it be read? -----------------------------------------------------------------------------------------
def _check_magic(file: Path) -> None:
    with file.open("rb") as data:
        magic = data.read(4)
    if magic != b"GGUF":
        raise VisitError(
            f"{file.name!r} is no GGUF file: it begins with {magic!r}, not with b'GGUF'. Give a .gguf file, a folder "
            "with one, or a folder written by save_pretrained."
        )


def _reader(file: Path) -> Any:
    """The parsed file. Nothing of its weights is read."""
    from gguf import GGUFReader

    check_header(file)
    try:
        reader = GGUFReader(file)
    except Exception as error:  # whatever lies in a damaged header: an index, a memory, a struct or a value error
        raise VisitError(
            _damaged(file, f"its header or its weights end before they should ({first_line(error).rstrip('.')})")
        ) from error
    end = max((int(t.data_offset) + int(t.n_bytes) for t in reader.tensors), default=0)
    if end > file.stat().st_size:
        raise VisitError(_damaged(file, f"{file.stat().st_size:,} of its {end:,} bytes are there"))
    return reader


def _damaged(file: Path, why: str) -> str:
    return f"{file.name!r} is cut short or damaged: {why}. Download it again."


def _check_text_model(file: Path, reader: Any) -> str:
    """The architecture of a file that holds one whole text model in types that can be dequantised."""
    from gguf.quants import dequantize

    about = {name: _field(reader, f"general.{name}") for name in ("architecture", "type")}
    names = [tensor.name for tensor in reader.tensors]
    if about["architecture"] == "clip" or about["type"] == "mmproj" or any(n.startswith(("v.", "mm.")) for n in names):
        raise VisitError(
            f"{file.name!r} holds the vision part of a model; VISIT reads text models. Give the file of the text model."
        )
    if about["type"] == "adapter":
        raise VisitError(f"{file.name!r} is an adapter, not a whole model. Merge it into its base model first.")
    parts = _SPLIT.search(file.name)
    if int(_field(reader, "split.count") or (parts and parts[1]) or 1) > 1:
        raise VisitError(
            f"{file.name!r} is one part of a model that is split over several files. Merge them into one first "
            "(llama.cpp: llama-gguf-split --merge)."
        )
    if about["architecture"] not in ARCHITECTURES:
        raise VisitError(
            f"VISIT reads GGUF files of the architectures {', '.join(ARCHITECTURES)}; {file.name!r} is "
            f"{about['architecture']!r}. Choose another model, or this one as safetensors if its family is supported."
        )
    for kind in {t.tensor_type for t in reader.tensors}:
        sample = next(t for t in reader.tensors if t.tensor_type == kind)
        try:
            dequantize(sample.data.reshape(-1, sample.data.shape[-1])[:1], kind)
        except Exception as error:
            raise VisitError(
                f"{file.name!r} is quantised as {kind.name}, which the package gguf cannot turn back into numbers. "
                "Choose a file in another quantisation, such as Q4_K_M or Q8_0."
            ) from error
    return about["architecture"]


def _field(reader: Any, name: str) -> Any:
    """One value of the header, None where it has none."""
    found = reader.fields.get(name)
    return None if found is None else found.contents()


# ---- steps 2 and 3: config, tokenizer, names -------------------------------------------------------------------------
def _make(file: Path, folder: Path) -> Header:
    """Read a header for the first time, and write what the cache keeps into `folder`."""
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    reader = _reader(file)
    architecture = _check_text_model(file, reader)
    blocks = _field(reader, f"{architecture}.block_count")
    if isinstance(blocks, int) and blocks > len(reader.tensors):  # lists of this length are made next
        raise VisitError(
            _damaged(file, f"it says that it has {blocks:,} blocks, and holds {len(reader.tensors):,} tensors")
        )
    _check_rotation(file, reader, architecture)
    place = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
    with quiet():
        try:
            facts = load_gguf_checkpoint(str(file))["config"]
            config = CONFIG_MAPPING[facts["model_type"]].from_dict(
                dict(facts)
            )  # as AutoConfig does, the file read once
        except Exception as error:
            raise VisitError(f"The config in {file.name!r} is not one VISIT can read: {first_line(error)}") from error
        _complete_config(file, reader, architecture, config)
        if not _field(reader, "tokenizer.ggml.tokens"):
            raise VisitError(f"{file.name!r} holds no tokenizer (tokenizer.ggml.tokens). Choose a file that has one.")
        try:
            AutoTokenizer.from_pretrained(str(file.parent), **place).save_pretrained(str(folder))
        except Exception as error:
            raise VisitError(f"The tokenizer in {file.name!r} cannot be read: {first_line(error)}") from error
        tensors = _named(file, reader, config, architecture)
    quantization, dtype = _quantization(reader)
    config.dtype = dtype
    config.save_pretrained(str(folder))
    kept: dict[str, Any] = {
        "quantization": quantization,
        "dtype": dtype,
        "architecture": architecture,
        # what the processors of tensors look at
        "facts": {name: fact for name, fact in facts.items() if isinstance(fact, bool | int | float | str)},
    }
    rows = [asdict(tensor) for tensor in tensors]
    (folder / "gguf.json").write_text(json.dumps({**kept, "tensors": rows}), encoding="utf-8")
    return Header(file=file, folder=folder, tensors=tensors, **kept)


def _check_rotation(file: Path, reader: Any, architecture: str) -> None:
    """Scaled rotations: transformers' reader of GGUF drops them, and another model would run without a word."""
    scaling = _field(reader, f"{architecture}.rope.scaling.type")
    factor = _field(reader, f"{architecture}.rope.scaling.factor")
    scaled = scaling not in (None, "none") or factor not in (None, 0.0, 1.0)
    if scaled or any(tensor.name.startswith("rope_freqs") for tensor in reader.tensors):
        raise VisitError(
            f"The rotary positions of {file.name!r} are scaled for long texts, which transformers does not read from "
            "GGUF files: its answers would be another model's. Use this model's safetensors."
        )


def _complete_config(file: Path, reader: Any, architecture: str, config: Any) -> None:
    """What the file says, the config has a place for, and transformers' table leaves out."""

    def said(name: str) -> Any:
        return _field(reader, f"{architecture}.{name}")

    if architecture == "gpt2":
        config.n_positions = said("context_length")
        config.n_inner = said("feed_forward_length")
    if config.model_type == "mistral":
        config.sliding_window = said("attention.sliding_window")
    if architecture == "qwen3" and said("attention.key_length"):
        config.head_dim = said("attention.key_length")
    if architecture == "stablelm":
        if said("rope.dimension_count"):
            part = said("rope.dimension_count") / (config.hidden_size // config.num_attention_heads)
            config.rope_parameters = {**config.rope_parameters, "partial_rotary_factor": part}
            config.partial_rotary_factor = part
        if said("rope.freq_base"):
            config.rope_parameters = {**config.rope_parameters, "rope_theta": said("rope.freq_base")}
        config.qk_layernorm = any(".attn_q_norm." in tensor.name for tensor in reader.tensors)
    if architecture == "gemma2":
        config.attn_logit_softcapping = said("attn_logit_softcapping") or config.attn_logit_softcapping
        config.final_logit_softcapping = said("final_logit_softcapping") or config.final_logit_softcapping
    if architecture in ("gemma2", "gemma3") and config.head_dim != config.query_pre_attn_scalar:
        raise VisitError(
            f"{file.name!r} does not say by what its attention scores are scaled: its heads are {config.head_dim} "
            f"wide, and the {architecture} models that transformers reads from GGUF scale by "
            f"{config.query_pre_attn_scalar}^-1/2. Use this model's safetensors."
        )


def _named(file: Path, reader: Any, config: Any, architecture: str) -> tuple[Stored, ...]:
    """The file's tensors with the weights that they are. One that has no place in the model is refused."""
    weights = _weights_of(config, architecture)
    lost = [tensor.name for tensor in reader.tensors if tensor.name not in weights]
    if lost:
        raise VisitError(
            f"{file.name!r} holds {len(lost)} tensors that have no place in transformers' {config.model_type} model "
            f"({', '.join(lost[:3])}{', …' if len(lost) > 3 else ''}): another model would be read. Use its "
            "safetensors."
        )
    return tuple(
        Stored(
            tensor.name, weights[tensor.name], tensor.tensor_type.name, tuple(int(n) for n in reversed(tensor.shape)),
            int(tensor.data_offset), int(tensor.n_bytes),
        )
        for tensor in reader.tensors
    )  # fmt: skip


def _weights_of(config: Any, architecture: str) -> dict[str, str]:
    """The name of a tensor in the file -> the name of the model's weight.

    The libraries' tables go from the model's names to the file's. Some models were written from their inner module,
    so that leading parts of a name are left off; a name with more of its parts has the right of way.
    """
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    kind = next(arch for arch, name in MODEL_ARCH_NAMES.items() if name == _LIKE.get(architecture, architecture))
    table = get_tensor_name_map(kind, config.num_hidden_layers)
    with torch.device("meta"):
        names = list(AutoModelForCausalLM.from_config(config).state_dict())
    found: dict[str, str] = {}
    for left_off in range(max(name.count(".") for name in names) + 1):
        for name in names:
            path, _, ending = ".".join(name.split(".")[left_off:]).rpartition(".")
            if path and ending in ("weight", "bias") and (there := table.get_name(path)):
                found.setdefault(f"{there}.{ending}", name)
    return found


_LIKE = {"mistral": "llama"}  # written by llama.cpp under the name of another


def _quantization(reader: Any) -> tuple[str, str]:
    """How the weights are stored, as "4-bit (Q4_1)", empty where they are plain numbers; and the type to compute in."""
    from gguf import LlamaFileType

    counts: dict[str, int] = {}
    for tensor in reader.tensors:
        counts[tensor.tensor_type.name] = counts.get(tensor.tensor_type.name, 0) + int(tensor.n_elements)
    most = max(counts, key=lambda name: counts[name])
    if most in _PLAIN:
        return "", {"F16": "float16", "BF16": "bfloat16"}.get(most, "float32")
    try:
        name = LlamaFileType(_field(reader, "general.file_type")).name.removeprefix("MOSTLY_")
    except ValueError:  # None, or a mixture that this version of the package has no name for
        name = most
    name = name if re.search(r"\d", name) and name not in _PLAIN else most
    bits = re.search(r"\d+", name)
    return f"{bits[0]}-bit ({name})" if bits else name, "float32"


# ---- step 4: the weights ---------------------------------------------------------------------------------------------
class Weight:
    """One weight that is dequantised when `[...]` asks for it, as transformers does with a slice of safetensors."""

    def __init__(self, stored: Stored, file: Weights) -> None:
        self._stored, self._file = stored, file

    def __getitem__(self, _: Any) -> torch.Tensor:
        return self._file.read(self._stored)


class Weights:
    """The weights of a file, each read when it is asked for."""

    def __init__(self, header: Header) -> None:
        from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor

        self.header = header
        self._processor = TENSOR_PROCESSORS.get(header.architecture, TensorProcessor)(config=header.facts)

    def state_dict(self) -> dict[str, Weight]:
        """The model's names -> its weights, not read yet."""
        return {stored.weight: Weight(stored, self) for stored in self.header.tensors}

    def read(self, stored: Stored) -> torch.Tensor:
        """One weight in float32, in the layout of transformers' model."""
        from gguf import GGMLQuantizationType, quant_shape_to_byte_shape
        from gguf.quants import dequantize

        kind = GGMLQuantizationType[stored.type]
        *rows, row = quant_shape_to_byte_shape(stored.shape, kind)
        numbers = np.empty((int(np.prod(rows)), stored.shape[-1]), np.float32)
        step = max(1, _STEP_BYTES // row)
        with self.header.file.open("rb") as data:  # a stretch at a time: neither the file nor a second copy stays
            data.seek(stored.offset)
            for start in range(0, len(numbers), step):
                part = numbers[start : start + step]
                raw = np.fromfile(data, np.uint8, len(part) * row)
                part[:] = dequantize(raw.reshape(len(part), row), kind)
        numbers = numbers.reshape(stored.shape)
        apart: dict[str, torch.Tensor] = {}  # GPT-2's processor puts an unembedding of its own here
        done = self._processor.process(numbers, stored.name, parsed_parameters={"tensors": apart})
        if apart:
            return apart.popitem()[1].float()
        return torch.from_numpy(np.ascontiguousarray(done.weights, dtype=np.float32))
