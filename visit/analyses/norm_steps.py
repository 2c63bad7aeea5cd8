"""The norms of a model, taken apart: which there are, what enters each, and the vector after each of its steps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from visit.activations.forward import Activations
from visit.errors import VisitError
from visit.exact.decompose import needed, raw_output
from visit.models.model import Model

NORMS = ("ln1", "ln2", "final")  # the paper's
POST_NORMS = ("post_attn", "post_mlp")  # between what a sub-layer gives and the stream (Gemma 2 and 3, OLMo 2)
_INSIDE = ("ln1", "post_attn", "ln2", "post_mlp")  # of a block, in the order of the data
STEPS = ("centring", "scaling", "gain", "bias")
Site = tuple[int | None, str]  # layer and norm; the final norm has no layer


def norm_module(model: Model, layer: int | None, norm: str) -> Any:
    """The norm's module; a `VisitError` for a name or a layer that the model does not have."""
    if norm not in NORMS + POST_NORMS:
        raise VisitError(f"norm must be one of {', '.join(NORMS + POST_NORMS)}; {norm!r} came.")
    if norm == "final":
        if model.ln_final is None:
            raise VisitError(f"{model.name} has no final norm.")
        return model.ln_final
    if layer is None or not 0 <= layer < model.n_layers:
        raise VisitError(f"Layers of {model.name} run from 0 to {model.n_layers - 1}; {layer} came.")
    if not has_norm(model, norm):
        raise VisitError(f"A block of {model.name} has no {norm} of its own. Ask for {_other(model, norm)}.")
    return model.module(getattr(model.family, norm), layer)


def has_norm(model: Model, norm: str) -> bool:
    """Whether the model has this norm. Where attention and MLP share one, it is ln1, and there is no ln2."""
    return (model.ln_final if norm == "final" else getattr(model.family, norm)) is not None


def _other(model: Model, norm: str) -> str:
    if norm == "ln2" and model.family.ln1:
        return "ln1, which attention and MLP share"
    return " or ".join([n for n in _INSIDE if has_norm(model, n)][:2] or ["the final norm"])


def node_of(layer: int | None, norm: str) -> str:
    """The norm's output in the flow graph: `L3.ln1_out`, `ln_final`."""
    names = {"final": "ln_final", "post_attn": f"L{layer}.attn_out", "post_mlp": f"L{layer}.mlp_out"}
    return names.get(norm, f"L{layer}.{norm}_out")


def parts_for(norms: Iterable[str]) -> tuple[str, ...]:
    """What a pass must capture for these norms, besides the stream: a post-norm reads what heads or neurons give."""
    terms = {"post_attn": "z", "post_mlp": "neurons"}
    return ("resid_pre", "resid_mid", "resid_post", *(terms[n] for n in norms if n in terms))


def state_before(model: Model, acts: Activations, layer: int | None, norm: str) -> Float[Tensor, "pos d_model"]:
    """What enters the norm, at every position of the record: the stream, or what a sub-layer gives.

    Where attention and MLP stand side by side there is no resid_mid, and ln2 reads what ln1 reads.
    """
    if norm in POST_NORMS and layer is not None:
        part = norm.removeprefix("post_")
        return raw_output(model, acts, layer, part, slice(None)).to(model.dtype)
    between = "resid_pre" if model.family.parallel else "resid_mid"
    name = {"ln1": "resid_pre", "ln2": between, "final": "resid_post"}[norm]
    return needed(acts, name)[-1 if layer is None or norm == "final" else layer]


def normed(model: Model, layer: int | None, norm: str, x: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
    """`ln(x)` by the module's own forward, past any hook of another thread: what the model itself makes of x."""
    return norm_module(model, layer, norm).forward(x.to(model.dtype)).to(device=x.device, dtype=model.wide)


def norm_steps(
    model: Model, layer: int | None, norm: str, x: Float[Tensor, "n d_model"]
) -> dict[str, Float[Tensor, "n d_model"]]:
    """The vector as it comes (`before`) and after each step that this norm has, by the step's name.

    LayerNorm: centring, scaling, gain, bias (if it has one). RMSNorm: scaling, gain. The last one is the model's own
    output, so that all differences together are the norm's, whatever it rounds.
    """
    module = norm_module(model, layer, norm)
    is_layer = model.family.norm == "layer"
    wide = x.to(model.wide)
    steps = {"before": wide}
    if is_layer:
        steps["centring"] = wide = wide - wide.mean(-1, keepdim=True)
    steps["scaling"] = wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + model.epsilon(module))
    bias = getattr(module, "bias", None)
    if is_layer and bias is not None:
        steps["gain"] = wide * model.gain(module)
    steps["gain" if bias is None else "bias"] = normed(model, layer, norm, x)
    return steps


def with_final(norm: str, final_norm: bool | None) -> bool:
    """Whether the lens has its final norm: as asked; else yes, but not after the final norm itself (no norm twice)."""
    return norm != "final" if final_norm is None else final_norm


def norm_sites(
    model: Model, layers: Iterable[int] | None = None, norms: Iterable[str] = NORMS + POST_NORMS
) -> list[Site]:
    """Every norm of the model, or those chosen, in the order of the data. `VisitError` for one that does not exist."""
    wanted = list(norms)
    chosen = list(range(model.n_layers)) if layers is None else list(layers)
    for norm in wanted:
        for layer in chosen:
            if norm not in NORMS + POST_NORMS or has_norm(model, norm):
                norm_module(model, layer, norm)  # refuses a wrong name or layer
    inside = [n for n in _INSIDE if n in wanted and has_norm(model, n)]
    found: list[Site] = [(layer, n) for layer in chosen for n in inside]
    if "final" in wanted and (has_norm(model, "final") or wanted == ["final"]):
        norm_module(model, None, "final")  # refuses where it is all that was asked for and not there
        found.append((None, "final"))
    return found
