"""How one number of a run changes with what is added to the stream: one pass forward and one back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from visit.activations.edit_hooks import edit_hooks
from visit.activations.record import Activations
from visit.exact.question import Question
from visit.models.model import Model

GRAPH_BYTES = 1 << 30  # what autograd may keep of a pass before blocks are computed a second time
MOST_KEPT = 16  # gradients of one record: two vectors a block each
_KEPT: WeakKeyDictionary[Activations, dict[tuple[int, int, int | None], Gradients]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Gradients:
    """How one number m of a run changes with what is added to the stream: ∂m/∂`attn_out`, ∂m/∂`mlp_out`.

    m is the target's centred logit at `pos` (or target − distractor), before a soft-cap; units: logits per unit of the
    stream. `positions` names what the axis `pos` of the gradients holds: `pos` alone, or all positions.
    A state has the gradient of what was added to it last (`into`). `entered`: ∂m/∂ the stream before block 0, where
    all positions were asked for; None else.
    """

    pos: int
    positions: tuple[int, ...]
    attn_out: Float[Tensor, "layer pos d_model"]
    mlp_out: Float[Tensor, "layer pos d_model"]
    entered: Float[Tensor, "pos d_model"] | None = None

    def into(self, kind: str, layer: int) -> Float[Tensor, " d_model"]:
        """∂m/∂ a vector at `pos`: "attn_out", "mlp_out", "resid_mid", "resid_post", or "resid_pre" after block 0."""
        if kind == "resid_pre":
            kind, layer = "resid_post", layer - 1
        part = self.attn_out if kind in ("attn_out", "resid_mid") else self.mlp_out
        return part[layer, self.positions.index(self.pos)]


def gradients_of(question: Question) -> Gradients:
    """How the logits that `attribution` counts change with what is added to the stream at `pos`: one more run.

    They are kept with the record, so that one page's graphs and tables differentiate once.
    """
    kept = _KEPT.setdefault(question.acts, {})
    key = (question.pos, question.target, question.distractor)
    if key not in kept:
        if len(kept) >= MOST_KEPT:
            kept.clear()
        kept[key] = gradients(question.model, question.acts, question.pos, question.word)
    return kept[key]


def gradients(
    model: Model, acts: Activations, pos: int, word: Float[Tensor, " d_model"], every: bool = False
) -> Gradients:
    """∂⟨x, word⟩ with respect to what attention and MLP of every block add to the stream: one forward, one backward.

    x: what leaves the final norm at `pos`, so that with `word` = U_w − mean_u U_u the number is the target's centred
    logit before a soft-cap. The run is that of the record, its edits included. In three steps:
    1. A vector of zeros is added where the stream takes what a sub-layer gives (past a post-norm, where there is one).
    2. The model's own code runs with frozen weights: autograd follows these zeros and nothing else.
    3. One backward pass gives the gradient of each.
    `every`: of all positions, not of `pos` alone, and of the stream before block 0 as well. Where the pass would keep
    more than `GRAPH_BYTES`, the blocks are computed a second time on the way back, one after the other.
    Source: causes section 11.
    """
    length = len(acts.token_ids)
    at = slice(None) if every else slice(pos, pos + 1)
    family = model.family
    zeros: dict[tuple[str, int], Tensor] = {}
    seen: dict[str, Tensor] = {}

    def added(key: tuple[str, int], output: Tensor) -> Tensor:
        if key not in zeros:
            zeros[key] = torch.zeros_like(output[..., at, :]).requires_grad_()
        output = output.clone()  # the block may add to it in place
        output[..., at, :] += zeros[key]
        return output

    def read(_module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        seen["x"] = args[0]
        return args[0][..., :0, :], *args[1:]  # the unembedding is the largest product of a short pass: of no position

    places = {"attn_out": family.post_attn or family.w_o, "mlp_out": family.post_mlp or family.w_out}
    last = model.unembedding if model.project_out is None else model.module(str(family.project_out))
    large = _graph_bytes(model, length) > GRAPH_BYTES
    with model.lock, torch.enable_grad(), edit_hooks(model, acts.edits, length), ExitStack() as stack:
        for layer in range(model.n_layers):
            for name, path in places.items():
                module, key = model.module(path, layer), (name, layer)
                hook = module.register_forward_hook(lambda _m, _args, output, key=key: added(key, output))
                stack.callback(hook.remove)
        if every:
            hook = model.blocks[0].register_forward_pre_hook(
                lambda _m, args: (added(("entered", 0), args[0]), *args[1:])
            )
            stack.callback(hook.remove)
        stack.callback(last.register_forward_pre_hook(read).remove)
        if large:
            stack.enter_context(_recomputed(model))
        # only what stands from `pos` on comes to the unembedding; nothing but its input is used
        model.hf(torch.tensor([acts.token_ids], device=model.device), use_cache=False, logits_to_keep=length - pos)
        number = seen["x"].reshape(-1, model.d_model)[pos - length].to(model.wide) @ word.to(seen["x"].device)
        found = torch.autograd.grad(number, list(zeros.values()))
    by_key = {
        key: g.reshape(-1, model.d_model).to(model.device, model.wide) for key, g in zip(zeros, found, strict=True)
    }
    return Gradients(
        pos, tuple(range(length)) if every else (pos,),
        **{name: torch.stack([by_key[name, layer] for layer in range(model.n_layers)]) for name in places},
        entered=by_key.get(("entered", 0)),
    )  # fmt: skip


def _graph_bytes(model: Model, length: int) -> int:
    """About what autograd keeps of one pass: scores and patterns four times, states and neurons as often."""
    each = 4 * (model.n_heads * length**2 + length * (3 * model.d_model + model.d_mlp))
    return model.n_layers * each * model.dtype.itemsize


@contextmanager
def _recomputed(model: Model) -> Iterator[None]:
    """Blocks whose insides are not kept for the way back but computed again there."""
    before = [(block, vars(block).get("forward")) for block in model.blocks]  # a model over several cards has its own
    try:
        for block in model.blocks:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        yield
    finally:
        for block, forward in before:
            if forward is None:
                vars(block).pop("forward", None)
            else:
                block.forward = forward
