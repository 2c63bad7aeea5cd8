"""A LoRA adapter: a folder with small matrices that are merged into its base model's weights, by peft."""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from visit.errors import VisitError
from visit.models.catalog import check_hosted
from visit.models.checkpoint import tensor_sizes

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
    try:
        about = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        base, kind = about.get("base_model_name_or_path"), about.get("peft_type")
    except (ValueError, AttributeError) as error:
        raise VisitError(f"{CONFIG} in {str(folder)!r} is no config of an adapter ({error}).") from error
    if not isinstance(base, str) or not base:
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
