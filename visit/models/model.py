"""A loaded model: the Hugging Face module, its tokenizer, its dimensions, and its weights in one orientation.

All weights are given `[in, out]` (row vectors, `x @ W`), whichever way the checkpoint stores them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from visit.errors import VisitError, check_kind, told_panics
from visit.models.families import Family, family_of
from visit.models.tokens import single_token, token_strings


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
    quantization: str = ""  # how the file stored the weights before they were dequantised, as "4-bit (Q4_1)"
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
        """Where vectors are read: with the unembedding. Blocks of a model spread over cards lie elsewhere, too."""
        return self.unembedding.weight.device

    @cached_property
    def dtype(self) -> torch.dtype:
        return self.unembedding.weight.dtype

    @cached_property
    def wide(self) -> torch.dtype:
        """The type in which sums are done: the model's own, float32 at least."""
        return torch.promote_types(self.dtype, torch.float32)

    def _wide(self, parameter: Tensor) -> Tensor:
        return parameter.detach().to(device=self.device, dtype=self.wide)

    # ---- weights, [in, out] ------------------------------------------------------------------------------------
    def weight(self, path: str, layer: int) -> Tensor:
        module = self.module(path, layer)
        return self._wide(module.weight if isinstance(module, Conv1D) else module.weight.T)

    def bias(self, path: str, layer: int) -> Tensor | None:
        bias = self.module(path, layer).bias
        return None if bias is None else self._wide(bias)

    def split_qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A fused output or weight along its last axis: q `[…, head, d_head]`, k and v `[…, kv_head, d_head]`."""
        heads, groups = self.n_heads, self.n_kv_heads
        rows = x.unflatten(-1, (heads + 2 * groups, self.d_head))
        if self.family.fused == "thirds":
            q, k, v = rows.split([heads, groups, groups], dim=-2)
            return q, k, v
        each = rows.unflatten(-2, (groups, heads // groups + 2))
        return each[..., :-2, :].flatten(-3, -2), each[..., -2, :], each[..., -1, :]

    def _qkv(self, which: int, layer: int) -> tuple[Tensor, Tensor]:
        """Weight `[head, d_model, d_head]` and bias `[head, d_head]` (zeros where there is none) of q, k or v."""
        fused = len(self.family.qkv) == 1
        path = self.family.qkv[0 if fused else which]
        weight, bias = self.weight(path, layer), self.bias(path, layer)
        if fused:
            weight = self.split_qkv(weight)[which]
            bias = None if bias is None else self.split_qkv(bias)[which]
        else:
            weight = weight.unflatten(-1, (-1, self.d_head))
            bias = None if bias is None else bias.unflatten(-1, (-1, self.d_head))
        return weight.transpose(0, 1), weight.new_zeros(weight.shape[1:]) if bias is None else bias

    def W_Q(self, layer: int) -> Tensor:
        """`[head, d_model, d_head]`."""
        return self._qkv(0, layer)[0]

    def W_K(self, layer: int) -> Tensor:
        """`[kv_head, d_model, d_head]`."""
        return self._qkv(1, layer)[0]

    def b_Q(self, layer: int) -> Tensor:
        """`[head, d_head]`, zeros where the family has no bias."""
        return self._qkv(0, layer)[1]

    def b_K(self, layer: int) -> Tensor:
        """`[kv_head, d_head]`, zeros where the family has no bias."""
        return self._qkv(1, layer)[1]

    # What is written into the stream. Where a norm stands between a sub-layer and the stream, its gain is part of
    # these: a row is what the stream gets, but for the one number r_t = 1/rms of the whole output (`decompose`).
    def W_O(self, layer: int) -> Tensor:
        """`[head, d_head, d_model]`, times the gain of the post-norm where there is one."""
        return self._written(self.weight(self.family.w_o, layer), "attn", layer).unflatten(0, (-1, self.d_head))

    def b_O(self, layer: int) -> Tensor | None:
        bias = self.bias(self.family.w_o, layer)
        return None if bias is None else self._written(bias, "attn", layer)

    def W_in(self, layer: int) -> Tensor:
        """`[d_model, d_mlp]`: the reading directions (of a gated MLP: the up projection)."""
        return self.weight(self.family.w_in, layer)

    def W_gate(self, layer: int) -> Tensor | None:
        """`[d_model, d_mlp]`, None in a plain MLP."""
        return None if self.family.w_gate is None else self.weight(self.family.w_gate, layer)

    def W_out(self, layer: int) -> Tensor:
        """`[d_mlp, d_model]`: the writing directions, times the gain of the post-norm where there is one."""
        return self._written(self.weight(self.family.w_out, layer), "mlp", layer)

    def b_out(self, layer: int) -> Tensor | None:
        bias = self.bias(self.family.w_out, layer)
        return None if bias is None else self._written(bias, "mlp", layer)

    def post_norm(self, part: str, layer: int) -> Any:
        """The norm between a sub-layer ("attn" or "mlp") and the stream; None in most families."""
        path = self.family.post_attn if part == "attn" else self.family.post_mlp
        return None if path is None else self.module(path, layer)

    def _written(self, rows: Tensor, part: str, layer: int) -> Tensor:
        norm = self.post_norm(part, layer)
        return rows if norm is None else rows * self.gain(norm)

    # ---- norms -------------------------------------------------------------------------------------------------
    def gain(self, norm: Any) -> Tensor:
        """γ of a norm's module, `[width]`: its weight, 1 + weight in Gemma; ones where it has none."""
        if getattr(norm, "weight", None) is None:
            return torch.ones(norm.normalized_shape, device=self.device, dtype=self.wide)
        return self._wide(norm.weight) + 1 if self.family.unit_gain else self._wide(norm.weight)

    def shift(self, norm: Any) -> Tensor | None:
        """β of a norm's module, `[width]`; None where it has none."""
        bias = getattr(norm, "bias", None)
        return None if bias is None else self._wide(bias)

    @staticmethod
    def epsilon(norm: Any) -> float:
        """The ε under the root."""
        return float(norm.eps if hasattr(norm, "eps") else norm.variance_epsilon)

    def block_norm(self, name: str, layer: int) -> Any:
        """The module of "ln1" or "ln2" in a block; None where the family has none of its own."""
        path = getattr(self.family, name)
        return None if path is None else self.module(path, layer)

    # ---- after the last block ----------------------------------------------------------------------------------
    @cached_property
    def ln_final(self) -> Any:
        """The final norm's module; None in the few checkpoints without one."""
        return _maybe(self.hf, self.family.ln_final)

    @cached_property
    def project_out(self) -> Tensor | None:
        """`[d_model, d_embed]`: the matrix between the final norm and the unembedding, None in nearly all models."""
        module = None if self.family.project_out is None else _maybe(self.hf, self.family.project_out)
        return None if module is None else self._wide(module.weight.T)

    @cached_property
    def unembedding(self) -> Any:
        return self.hf.get_output_embeddings()

    @cached_property
    def W_U_mean(self) -> Tensor:
        """`[d_model]`: the mean column of W_U, to which contributions are relative."""
        return self._in_stream(self.unembedding.weight.detach().mean(0, dtype=self.wide))

    def W_U(self, token: int) -> Tensor:
        """`[d_model]`: one column of the unembedding."""
        return self._in_stream(self._wide(self.unembedding.weight[token]))

    def _in_stream(self, column: Tensor) -> Tensor:
        return column if self.project_out is None else self.project_out @ column

    @cached_property
    def b_U(self) -> Tensor | None:
        """`[d_vocab]`: the bias of lm_head, None in most families."""
        bias = getattr(self.unembedding, "bias", None)
        return None if bias is None else self._wide(bias)

    @cached_property
    def logit_cap(self) -> float | None:
        """The soft-cap c of the logits, `c · tanh(logit / c)`; None in nearly all families."""
        cap = getattr(self.hf.config, "final_logit_softcapping", None)
        return None if cap is None else float(cap)

    @cached_property
    def final_gain(self) -> Tensor:
        if self.ln_final is None:
            return torch.ones(self.d_model, device=self.device, dtype=self.wide)
        return self.gain(self.ln_final)

    @cached_property
    def final_bias(self) -> Tensor | None:
        return None if self.ln_final is None else self.shift(self.ln_final)

    @cached_property
    def final_eps(self) -> float:
        return 0.0 if self.ln_final is None else self.epsilon(self.ln_final)

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
                with told_panics(f"The tokenizer of {self.name!r}"):
                    target = single_token(self.tokenizer, target, what)
            except VisitError:  # some tokenizers cannot encode a piece of theirs again: what is shown is accepted back
                same = [i for i, text in enumerate(self.vocabulary) if text == target]
                if len(same) != 1:
                    raise
                target = same[0]
        if isinstance(target, bool) or not hasattr(target, "__index__"):
            raise VisitError(f"The {what} must be a token id or a word that is one token; got {target!r}.")
        if not 0 <= int(target) < self.d_vocab:
            raise VisitError(f"The {what} must be a token id from 0 to {self.d_vocab - 1}; got {target}.")
        return int(target)


def wrap(hf: Any, tokenizer: Any, name: str, revision: str = "", quantization: str = "") -> Model:
    """A `Model` around a Hugging Face model at hand (loaded with `attn_implementation="eager"`) and its tokenizer."""
    config = hf.config
    family = family_of(config)
    if config._attn_implementation != "eager":
        raise VisitError(
            f"The model must be loaded with attn_implementation='eager', which alone returns attention patterns; "
            f"it was loaded with {config._attn_implementation!r}."
        )
    block = hf.get_submodule(family.blocks)[0]
    n_heads, w_o = config.num_attention_heads, block.get_submodule(family.w_o)
    d_head = _width(w_o, 0) // n_heads
    if len(family.qkv) == 3:
        kv_heads = _width(block.get_submodule(family.qkv[1]), 1) // d_head
    else:  # the config's own number is wrong for Falcon 7B
        kv_heads = (_width(block.get_submodule(family.qkv[0]), 1) // d_head - n_heads) // 2
    return Model(
        hf=hf.eval().requires_grad_(False), tokenizer=tokenizer, name=name, revision=revision, family=family,
        n_layers=len(hf.get_submodule(family.blocks)), n_heads=n_heads, n_kv_heads=kv_heads,
        d_model=_width(w_o, 1), d_head=d_head, d_mlp=_width(block.get_submodule(family.w_out), 0),
        d_vocab=hf.get_output_embeddings().weight.shape[0], max_tokens=_window(config, tokenizer),
        quantization=quantization,
    )  # fmt: skip


def tokenize(model: Model, prompt: str | Sequence[int]) -> tuple[int, ...]:
    """The prompt's token ids, by the model's own tokenizer and its defaults. Nothing is trimmed or added."""
    check_kind("The model", model, Model, "what visit.load_model returns")
    if isinstance(prompt, str):
        if not prompt.strip():
            raise VisitError(f"The prompt is {'blank' if prompt else 'empty'}. Type at least one word.")
        if not prompt.isascii() and any("\ud800" <= c <= "\udfff" for c in prompt):
            raise VisitError("The prompt holds bytes that are no text. Give it in UTF-8.")
        with told_panics(f"The tokenizer of {model.name!r}"):
            ids = tuple(model.tokenizer(prompt)["input_ids"])
    else:
        check_kind("A prompt", prompt, Iterable, "a text, or a sequence of token ids")
        prompt = list(prompt)
        if not all(isinstance(i, int) or hasattr(i, "__index__") for i in prompt):
            raise VisitError("A prompt is a string, or a sequence of token ids (whole numbers).")
        ids = tuple(int(i) for i in prompt)
    wrong = [i for i in ids if not 0 <= i < model.d_vocab]
    if wrong or not ids:
        got = f"got {wrong[0]}" if wrong else "got none"
        raise VisitError(f"A prompt needs at least one token, with an id from 0 to {model.d_vocab - 1}; {got}.")
    if len(ids) > model.max_tokens:
        raise VisitError(
            f"{model.name} reads at most {model.max_tokens} tokens; this prompt has {len(ids)}. "
            f"Shorten it by {len(ids) - model.max_tokens} tokens."
        )
    return ids


def has_norm(model: Model, norm: str) -> bool:
    """Whether the model has this norm. Where attention and MLP share one, it is ln1, and there is no ln2."""
    return (model.ln_final if norm == "final" else getattr(model.family, norm)) is not None


def stream_reader(model: Model, layer: int) -> Any:
    """The module that the stream enters whole: block `layer`, and after the last block what reads its last state."""
    if layer < model.n_layers:
        return model.blocks[layer]
    projected = model.module(str(model.family.project_out)) if model.project_out is not None else None
    return model.ln_final or projected or model.unembedding


def _width(module: nn.Module, side: int) -> int:
    """What a linear module takes (0) or gives (1)."""
    weight: Any = module.weight
    return weight.shape[side if isinstance(module, Conv1D) else 1 - side]


def _window(config: Any, tokenizer: Any) -> int:
    """How many tokens the model reads. BLOOM's positions are slopes without an end: its tokenizer names a length."""
    if getattr(config, "max_position_embeddings", None):
        return config.max_position_embeddings
    named = int(getattr(tokenizer, "model_max_length", 0) or 0)
    return named if 0 < named < 1 << 20 else 2048


def _maybe(module: Any, path: str) -> Any:
    """The module at `path`, None where there is none."""
    for name in path.split("."):
        module = getattr(module, name, None)
    return module
