"""Reading a checkpoint: embedded, a local folder or GGUF file, or the hub. Never pickled weights or remote code.

Everything is read from a folder or a file: the hub's files are fetched into its cache first. Before the weights are
touched, the files are judged by their headers and the memory that they will need is compared with what there is.
"""

from __future__ import annotations

import hashlib
import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from visit.errors import VisitError, told_panics
from visit.models import gguf, hub, wheels
from visit.models.catalog import (
    LISTED,
    MINI,
    MINI_FOLDER,
    check_hosted,
    choose_dtype,
    dimensions,
    forecast,
    memory_at_hand,
    return_freed_memory,
)
from visit.models.checkpoint import (
    VOCABULARIES,
    check_config,
    check_files,
    inspect_weights,
    local_path,
    read_json,
    readable_files,
    tensor_sizes,
)
from visit.models.families import family_of
from visit.models.load_weights import ProgressCallback, check_claims, first_line, read_weights
from visit.models.model import Model, wrap

# ---- a LoRA adapter --------------------------------------------------------------------------------------------------
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def is_adapter(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def merged(
    folder: Path,
    found: str,
    read_base: Callable[[str, str | None], tuple[Any, Any, str]],
    read_tokenizer: Callable[[Path, str], Any],
) -> tuple[Any, Any, str]:
    """(model, tokenizer, revision) of an adapter's base model with the adapter merged into its weights.

    `found` is the adapter's own revision, `read_base` loads a model by name and revision. The tokenizer is the
    adapter's own where it has one. Raises `VisitError` where peft, the base model or the adapter's safetensors are
    missing, or where they do not fit.
    """
    about = _described(folder)
    base = about["base_model_name_or_path"]
    beside = folder / base
    name = str(beside) if not Path(base).is_absolute() and (beside / "config.json").is_file() else base
    check_hosted(name)
    if is_adapter(Path(name)):
        raise VisitError(f"The base of the adapter {str(folder)!r} is an adapter itself: {base!r}. Merge that first.")
    try:
        hf, tokenizer, revision = read_base(name, about.get("revision"))
    except VisitError as error:
        raise VisitError(f"The adapter {str(folder)!r} needs its base model {base!r}. {error}") from error
    hf = _merge(folder, base, hf)
    if any((folder / f).is_file() for f in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        tokenizer = read_tokenizer(folder, str(folder))
    return hf.eval(), tokenizer, f"{revision} + adapter {found}"


def _described(folder: Path) -> dict[str, Any]:
    """The adapter's config, once everything that merging needs is there."""
    if importlib.util.find_spec("peft") is None:
        raise VisitError(f"{str(folder)!r} is an adapter; merging it needs peft, which is not here: pip install peft.")
    if not (folder / WEIGHTS).is_file():
        raise VisitError(
            f"The adapter {str(folder)!r} has no {WEIGHTS}. VISIT reads safetensors only, which cannot run code: save "
            "it again with peft_model.save_pretrained(folder, safe_serialization=True)."
        )
    tensor_sizes(folder / WEIGHTS)  # says so where the file is damaged
    about = read_json(folder / CONFIG, f"{CONFIG} in {str(folder)!r}")
    base, kind = about.get("base_model_name_or_path"), about.get("peft_type")
    if not isinstance(base, str) or not 0 < len(base) < 300 or not base.isprintable():
        raise VisitError(f"{CONFIG} in {str(folder)!r} names no base model (base_model_name_or_path). Write it there.")
    if kind != "LORA" or about.get("megatron_config"):
        raise VisitError(f"VISIT merges LoRA adapters; the one in {str(folder)!r} is of the kind {kind!r}.")
    return about


def _merge(folder: Path, base: str, hf: Any) -> Any:
    from peft import PeftModel

    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            hf = PeftModel.from_pretrained(hf, str(folder)).merge_and_unload()
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise VisitError(
            f"The adapter {str(folder)!r} does not fit its base model {base!r}: {' '.join(reason[:2])[:300]}"
        ) from error
    if any("missing adapter keys" in str(w.message).lower() for w in said):
        raise VisitError(f"The adapter {str(folder)!r} is incomplete: some of its matrices are not in {WEIGHTS}.")
    return hf


_DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_LOCAL = {"local_files_only": True, "trust_remote_code": False}


class Loaded(NamedTuple):
    """What was read: the Hugging Face model (eager attention, evaluation mode), its tokenizer, the revision.

    `quantization`: how the file stores the weights, as "4-bit (Q4_1)"; empty where they are the model's own numbers.
    """

    hf: Any
    tokenizer: Any
    revision: str
    quantization: str = ""


def load_model(
    path: str, revision: str | None = None, dtype: str | torch.dtype | None = None, device: str | None = None
) -> Model:
    """Load the embedded model (`"visit-mini"`), a local folder or GGUF file, or a model of the Hugging Face hub.

    Only safetensors and GGUF are read (quantised weights are turned back into numbers), and no code of the repository
    is run. `dtype=None`: float32 on the CPU (bfloat16 only when float32 does not fit into memory), the checkpoint's own
    type on a GPU. `device=None`: the CUDA GPU if there is one ("mps", an Apple GPU, only when asked for).
    Raises `VisitError` for a folder that is no model, an unknown architecture, pickled weights, or a hub that
    cannot be reached. Source: ours.
    """
    read = read_checkpoint(str(path), revision, dtype, device)
    return wrap(read.hf, read.tokenizer, str(path), read.revision, read.quantization)


def read_checkpoint(
    name: str,
    revision: str | None,
    dtype: str | torch.dtype | None,
    device: str | None,
    report: ProgressCallback | None = None,
) -> Loaded:
    """Read a checkpoint by its name: the embedded model's, a folder, a GGUF file, or a hub id.

    `report` is told how many of the weights' tensors are read. Raises `VisitError` for whatever cannot be read
    exactly, and, before any weights are read, for a model that would need more memory than can be had.
    """
    check_hosted(name)
    where = _device(device)
    folder, found = _folder(name, revision, dtype, where)
    if file := gguf.find_file(folder):
        return _read_gguf(name, file, found, dtype, where, report)
    if is_adapter(folder):

        def read_base(base: str, at: str | None) -> tuple[Any, Any, str]:
            return read_checkpoint(base, at, dtype, device, report)[:3]

        return Loaded(*merged(folder, found, read_base, _read_tokenizer))
    config = _config(folder, name)
    family = family_of(config)
    weights = inspect_weights(folder)
    kind = _chosen_dtype(name, dtype, config, where, weights.parameters)
    check_claims(name, config, weights.shapes)
    if where == "cpu" and kind.itemsize < 4:
        return_freed_memory()
    hf = read_weights(name, folder, config, family.blocks, kind, where, report)
    tokenizer = _read_tokenizer(folder, name)
    _check_vocabulary(name, tokenizer, len(hf.get_output_embeddings().weight))
    return Loaded(hf.eval(), tokenizer, found)


def _read_gguf(
    name: str, file: Path, found: str, dtype: str | torch.dtype | None, where: str, report: ProgressCallback | None
) -> Loaded:
    with gguf.opened(file) as header:
        config = _config(header.folder, name)
        family = family_of(config)
        kind = _chosen_dtype(name, dtype, config, where, header.parameters)
        check_claims(name, config, {stored.weight: stored.shape for stored in header.tensors})
        if where == "cpu" and kind.itemsize < 4:
            return_freed_memory()
        # as the file describes it: the automatic class splits texts by the habit of the family, whatever was saved
        tokenizer = _read_tokenizer(header.folder, name, PreTrainedTokenizerFast)
        hf = read_weights(name, gguf.Weights(header).state_dict(), config, family.blocks, kind, where, report)
    _check_vocabulary(name, tokenizer, len(hf.get_output_embeddings().weight))
    return Loaded(hf.eval(), tokenizer, found, header.quantization)


def _folder(name: str, revision: str | None, dtype: Any, where: str) -> tuple[Path, str]:
    """Where the files lie (a folder, or one GGUF file), fetched if need be, and which revision they are."""
    if name in LISTED and LISTED[name].wheel is not None:
        name = str(wheels.checked_file(name))
    if (local := MINI_FOLDER if name == MINI else local_path(name)) is not None:
        if not local.is_file():
            check_files(local)
        file = gguf.find_file(local)
        return local, "sha256:" + gguf.content_key(file) if file else folder_revision(local)
    hub.check_id(name)
    if cached := hub.cached_folder(name, revision):
        return cached, cached.name
    remote, folder = hub.look_up(name, revision), Path()
    with hub.room_for(name, remote.bytes):
        for fetched, path in hub.fetch_files(name, revision, list(remote.files)):
            folder = path.parent
            if fetched == "config.json":
                config = _config(folder, name)
                family_of(config)
                _chosen_dtype(name, dtype, config, where, _parameters(remote, config))
    return folder, folder.name


def _parameters(remote: hub.Remote, config: Any) -> int:
    """As the hub counts them; where it does not, by the bytes of the weights."""
    if remote.parameters:
        return remote.parameters
    weights = sum(size for file, size in remote.files.items() if file.endswith(".safetensors"))
    return weights // _stored(config).itemsize


def _config(folder: Path, name: str) -> Any:
    if not (folder / "config.json").is_file():
        inspect_weights(folder)  # says what the folder lacks
    check_config(folder, name)
    try:
        config = AutoConfig.from_pretrained(str(folder), **_LOCAL)
        sizes = {size: getattr(config, size) for size in _SIZES if hasattr(config, size)}
    except Exception as error:
        raise VisitError(f"The config of {name!r} is not one VISIT can read: {first_line(error)}") from error
    for size, number in sizes.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise VisitError(
                f"The config of {name!r} says {size} = {number!r}; it must be a whole number from 1. Use the "
                "config.json that was saved with these weights."
            )
    return config


_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")  # as every family's config has them


def _read_tokenizer(folder: Path, name: str, kind: Any = AutoTokenizer) -> Any:
    """The tokenizer of a folder. transformers makes an empty one where the vocabulary's file is missing: refused."""
    if not any((folder / file).is_file() for file in VOCABULARIES):
        raise VisitError(f"The tokenizer of {name!r} is missing: no {' or '.join(VOCABULARIES[:3])}. {_FILES}")
    try:
        with told_panics("It"):
            tokenizer = kind.from_pretrained(str(folder), **_LOCAL)
            tokenizer("a test")  # with what it puts around every text
        ids = [i for i in tokenizer("a test", add_special_tokens=False)["input_ids"] if i != tokenizer.unk_token_id]
        known = [piece for piece in tokenizer.convert_ids_to_tokens(ids) if piece.strip("▁Ġ ")]
    except Exception as error:
        raise VisitError(f"The tokenizer of {name!r} cannot be read: {first_line(error)} {_FILES}") from error
    if not known:
        raise VisitError(f"The tokenizer of {name!r} knows no words: the file of its vocabulary is missing. {_FILES}")
    return tokenizer


_FILES = (
    "The folder needs tokenizer.json (or tokenizer.model, or vocab.json and merges.txt) and tokenizer_config.json: "
    "tokenizer.save_pretrained(folder) writes them."
)


def _check_vocabulary(name: str, tokenizer: Any, rows: int) -> None:
    largest = max(tokenizer.get_vocab().values())
    if largest >= rows:
        raise VisitError(
            f"The tokenizer of {name!r} has token ids up to {largest:,}, and the model's embedding has {rows:,} rows: "
            "some texts cannot be run. Use the tokenizer that the model was trained with, or resize the embedding "
            f"(model.resize_token_embeddings({largest + 1})) and save it again."
        )


def _device(device: str | None) -> str:
    """Where the model goes: the CUDA GPU when there is one; "auto" leaves it to accelerate.

    An Apple GPU ("mps") is taken only when asked for: one gave inverted logits without an error (doctor tells).
    """
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "auto":
        if importlib.util.find_spec("accelerate") is None:
            raise VisitError("device='auto' is the work of accelerate, which is not installed: pip install accelerate.")
        return device
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise VisitError(f"The device must be 'cpu', 'cuda', 'cuda:1', 'mps' or 'auto'; got {device!r}.") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise VisitError(f"The device {device!r} was asked for, and torch finds no GPU here. Use device='cpu'.")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise VisitError("The device 'mps' was asked for, and torch finds no Apple GPU here. Use device='cpu'.")
    return device


def _stored(config: Any) -> torch.dtype:
    stored = getattr(config, "dtype", None) or torch.float32
    return stored if isinstance(stored, torch.dtype) else _DTYPES[str(stored).removeprefix("torch.")]


def _chosen_dtype(name: str, wanted: str | torch.dtype | None, config: Any, where: str, parameters: int) -> torch.dtype:
    """The type to load in: as asked, else float32 on the CPU (bfloat16 where it does not fit), as stored on a GPU."""
    cuda = where.startswith("cuda") or (where == "auto" and torch.cuda.is_available())
    text = str(wanted).removeprefix("torch.") if wanted is not None else None
    if text is not None and text not in _DTYPES:
        raise VisitError(f"The dtype must be one of {', '.join(_DTYPES)}; got {wanted!r}.")
    kinds = [text] if text else [str(_stored(config)).removeprefix("torch.")] if cuda else ["float32", "bfloat16"]
    if where.startswith("mps") and text == "float64":
        raise VisitError("An Apple GPU has no float64. Use dtype='float32', or device='cpu'.")
    size = dimensions(config, parameters)
    if where == "auto" and cuda:  # all cards together: what does not fit on them would be kept off them: refused
        free = sum(memory_at_hand(f"cuda:{i}") for i in range(torch.cuda.device_count()))
    else:
        free = memory_at_hand() if where == "auto" else memory_at_hand(where)
    place = "the GPU's memory" if cuda else "memory"
    return _DTYPES[choose_dtype(name, [forecast(parameters, size, k) for k in kinds], free, place)]


def folder_revision(folder: Path) -> str:
    """A short hash of a folder's weights: sizes, headers and samples of every safetensors file."""
    digest = hashlib.sha256()
    for file in [file for file in readable_files(folder) if file.suffix == ".safetensors"]:
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}".encode())
        with file.open("rb") as data:
            for start in range(0, size, max(1 << 20, size // 16)):
                data.seek(start)
                digest.update(data.read(1 << 20))
    return "sha256:" + digest.hexdigest()[:12]
