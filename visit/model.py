"""A loaded model: the Hugging Face module, its tokenizer, its dimensions, and its weights in one orientation.

All weights are given `[in, out]` (row vectors, `x @ W`), whichever way the checkpoint stores them.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from visit.errors import VisitError
from visit.families import Family, family_of
from visit.loading import read_checkpoint
from visit.tokens import single_token, token_strings


@dataclass(frozen=True, eq=False)
class Model:
    """A causal language model, frozen. `lock` guards its hooks: one forward pass with hooks at a time."""

    hf: Any
    tokenizer: Any
    name: str
    revision: str
    family: Family
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    d_vocab: int
    max_tokens: int
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    # ---- modules -----------------------------------------------------------------------------------------------
    def module(self, path: str, layer: int | None = None) -> Any:
        """The module at `path`, from the block `layer` or, without one, from the language model."""
        return (self.hf if layer is None else self.blocks[layer]).get_submodule(path)

    @cached_property
    def blocks(self) -> Any:
        return self.hf.get_submodule(self.family.blocks)

    @cached_property
    def device(self) -> torch.device:
        return self.unembedding.weight.device

    @cached_property
    def dtype(self) -> torch.dtype:
        return self.unembedding.weight.dtype

    @cached_property
    def wide(self) -> torch.dtype:
        """The type in which sums are done: the model's own, float32 at least."""
        return torch.promote_types(self.dtype, torch.float32)

    # ---- weights, [in, out] ------------------------------------------------------------------------------------
    def weight(self, path: str, layer: int) -> Tensor:
        module = self.module(path, layer)
        weight = module.weight.detach()
        return (weight if isinstance(module, Conv1D) else weight.T).to(self.wide)

    def bias(self, path: str, layer: int) -> Tensor | None:
        bias = self.module(path, layer).bias
        return None if bias is None else bias.detach().to(self.wide)

    def _qkv(self, which: int, layer: int) -> tuple[Tensor, Tensor]:
        """Weight `[head, d_model, d_head]` and bias `[head, d_head]` (zeros where there is none) of q, k or v."""
        heads = self.n_heads if which == 0 else self.n_kv_heads
        fused = len(self.family.qkv) == 1
        path = self.family.qkv[0 if fused else which]
        weight, bias = self.weight(path, layer), self.bias(path, layer)
        if fused:
            widths = [self.n_heads * self.d_head] + [self.n_kv_heads * self.d_head] * 2
            weight = weight.split(widths, dim=1)[which]
            bias = None if bias is None else bias.split(widths)[which]
        if bias is None:
            bias = weight.new_zeros(heads * self.d_head)
        return weight.unflatten(1, (heads, self.d_head)).transpose(0, 1), bias.unflatten(0, (heads, self.d_head))

    def W_Q(self, layer: int) -> Tensor:
        """`[head, d_model, d_head]`."""
        return self._qkv(0, layer)[0]

    def W_K(self, layer: int) -> Tensor:
        """`[kv_head, d_model, d_head]`."""
        return self._qkv(1, layer)[0]

    def W_V(self, layer: int) -> Tensor:
        """`[kv_head, d_model, d_head]`."""
        return self._qkv(2, layer)[0]

    def b_Q(self, layer: int) -> Tensor:
        """`[head, d_head]`, zeros where the family has no bias."""
        return self._qkv(0, layer)[1]

    def b_K(self, layer: int) -> Tensor:
        """`[kv_head, d_head]`, zeros where the family has no bias."""
        return self._qkv(1, layer)[1]

    def W_O(self, layer: int) -> Tensor:
        """`[head, d_head, d_model]`."""
        return self.weight(self.family.w_o, layer).unflatten(0, (self.n_heads, self.d_head))

    def b_O(self, layer: int) -> Tensor | None:
        return self.bias(self.family.w_o, layer)

    def W_in(self, layer: int) -> Tensor:
        """`[d_model, d_mlp]`: the reading directions (of a gated MLP: the up projection)."""
        return self.weight(self.family.w_in, layer)

    def W_gate(self, layer: int) -> Tensor | None:
        """`[d_model, d_mlp]`, None in a plain MLP."""
        return None if self.family.w_gate is None else self.weight(self.family.w_gate, layer)

    def W_out(self, layer: int) -> Tensor:
        """`[d_mlp, d_model]`: the writing directions."""
        return self.weight(self.family.w_out, layer)

    def b_out(self, layer: int) -> Tensor | None:
        return self.bias(self.family.w_out, layer)

    # ---- after the last block ----------------------------------------------------------------------------------
    @cached_property
    def unembedding(self) -> Any:
        return self.hf.get_output_embeddings()

    @cached_property
    def W_U_mean(self) -> Tensor:
        """`[d_model]`: the mean column of W_U, to which contributions are relative."""
        return self.unembedding.weight.detach().mean(0, dtype=self.wide)

    def W_U(self, token: int) -> Tensor:
        """`[d_model]`: one column of the unembedding."""
        return self.unembedding.weight[token].detach().to(self.wide)

    @cached_property
    def b_U(self) -> Tensor | None:
        """`[d_vocab]`: the bias of lm_head, None in most families."""
        bias = getattr(self.unembedding, "bias", None)
        return None if bias is None else bias.detach().to(self.wide)

    @cached_property
    def final_gain(self) -> Tensor:
        return self.module(self.family.ln_final).weight.detach().to(self.wide)

    @cached_property
    def final_bias(self) -> Tensor | None:
        bias = getattr(self.module(self.family.ln_final), "bias", None)
        return None if bias is None else bias.detach().to(self.wide)

    @cached_property
    def final_eps(self) -> float:
        norm = self.module(self.family.ln_final)
        return float(norm.eps if hasattr(norm, "eps") else norm.variance_epsilon)

    @cached_property
    def out_row_norms(self) -> list[Tensor]:
        """Per layer `[d_mlp]`: ‖W_out[n]‖, computed once (pruning needs it for every neuron)."""
        return [self.W_out(layer).norm(dim=1) for layer in range(self.n_layers)]

    @cached_property
    def o_row_norms(self) -> list[Tensor]:
        """Per layer `[head · d_head]`: ‖W_O[n]‖."""
        return [self.W_O(layer).flatten(0, 1).norm(dim=1) for layer in range(self.n_layers)]

    # ---- tokens ------------------------------------------------------------------------------------------------
    @cached_property
    def vocabulary(self) -> list[str]:
        """The text of every token id: broken bytes as `\\xe9`, rows without a token as `[50256]`."""
        return token_strings(self.tokenizer, self.d_vocab)

    def token_id(self, target: int | str, what: str = "target") -> int:
        """The id of `target`: an id in range, or a string that is exactly one token; else a `VisitError`."""
        if isinstance(target, str):
            try:
                target = single_token(self.tokenizer, target, what)
            except VisitError:  # some tokenizers cannot encode a piece of theirs again: what is shown is accepted back
                same = [i for i, text in enumerate(self.vocabulary) if text == target]
                if len(same) != 1:
                    raise
                target = same[0]
        if not 0 <= int(target) < self.d_vocab:
            raise VisitError(f"The {what} must be a token id from 0 to {self.d_vocab - 1}; {target} came.")
        return int(target)


def load_model(
    path: str, revision: str | None = None, dtype: str | torch.dtype | None = None, device: str | None = None
) -> Model:
    """Load the embedded model (`"visit-mini"`), a local folder, or a model of the Hugging Face hub.

    Only safetensors are read and no code of the repository is run. `dtype=None`: float32 on the CPU (bfloat16 only
    when float32 does not fit into memory), the checkpoint's own type on a GPU. `device=None`: the GPU if there is one.
    Raises `VisitError` for a folder that is no model, an unknown architecture, pickled weights, or a hub that
    cannot be reached. Source: ours.
    """
    hf, tokenizer, found = read_checkpoint(str(path), revision, dtype, device)
    return wrap(hf, tokenizer, str(path), found)


def wrap(hf: Any, tokenizer: Any, name: str, revision: str = "") -> Model:
    """A `Model` around a Hugging Face model at hand (loaded with `attn_implementation="eager"`) and its tokenizer."""
    config = hf.config
    family = family_of(config.model_type)
    if config._attn_implementation != "eager":
        raise VisitError(
            f"The model must be loaded with attn_implementation='eager', which alone returns attention patterns; "
            f"it was loaded with {config._attn_implementation!r}."
        )
    block = hf.get_submodule(family.blocks)[0]
    out_of_heads = _width_in(block.get_submodule(family.w_o))
    d_head = out_of_heads // config.num_attention_heads
    if len(family.qkv) == 3:
        kv_heads = block.get_submodule(family.qkv[1]).weight.shape[0] // d_head
    else:
        fused = block.get_submodule(family.qkv[0])
        kv_heads = (fused.weight.numel() // _width_in(fused) // d_head - config.num_attention_heads) // 2
    d_vocab, d_model = hf.get_output_embeddings().weight.shape
    return Model(
        hf=hf.eval(), tokenizer=tokenizer, name=name, revision=revision, family=family,
        n_layers=len(hf.get_submodule(family.blocks)), n_heads=config.num_attention_heads, n_kv_heads=kv_heads,
        d_model=d_model, d_head=d_head, d_mlp=_width_in(block.get_submodule(family.w_out)), d_vocab=d_vocab,
        max_tokens=config.max_position_embeddings,
    )  # fmt: skip


def _width_in(module: nn.Module) -> int:
    weight: Any = module.weight
    return weight.shape[0] if isinstance(module, Conv1D) else weight.shape[1]
