"""What made a number: the model, its revision and type, and the versions of the code."""

from __future__ import annotations

from typing import Any

from visit.models.model import Model


def provenance(model: Model, *about: str) -> dict[str, Any]:
    """The header of all that is written: `model`, `revision`, `dtype`, `quantization` (what it lost), `versions`.

    `about`: what else to say of the model: "family", or a dimension as "d_vocab".
    """
    return {
        "model": model.name, "revision": model.revision, "dtype": str(model.dtype).removeprefix("torch."),
        "quantization": quantization_note(model) or None,
        **{name: model.family.name if name == "family" else getattr(model, name) for name in about},
        "versions": versions(),
    }  # fmt: skip


def quantization_note(model: Model) -> str:
    """What a user must know of a model whose file was quantised; empty for any other."""
    note = f"{model.quantization}, dequantised: answers can differ a little from the original's"
    return note if model.quantization else ""


def versions() -> dict[str, str]:
    """The versions that made a number."""
    import torch
    import transformers

    import visit

    return {"visit": visit.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
