"""The hooks of one forward pass: where they sit, and the buffers that they fill.

They sit on leaf modules (norms and linear layers), whose inputs and outputs are single tensors in every version of
transformers. One rule serves every family: `z` is the input of W_O, `neurons` the input of W_out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from visit.activations.record import Activations, Applied
from visit.models.attention import qk_norm, rotation_sets, table_rotation
from visit.models.model import Model, stream_reader
from visit.models.tokens import ChatPrompt


class Recorder:
    """The buffers of one forward pass `[layer, batch, pos, …]`, filled by hooks with exactly one copy each."""

    def __init__(
        self, model: Model, parts: frozenset[str], kept: Tensor | None = None, layers: frozenset[int] | None = None
    ) -> None:
        self.model, self.wanted, self.parts, self.kept, self.layers = model, parts, parts, kept, layers
        self.buffers: dict[str, Tensor] = {}
        self.shape = (0, 0)  # prompts and positions of the run

    def run(self, ids: Tensor) -> None:
        model, self.shape = self.model, (ids.shape[0], ids.shape[1])
        # logits that nobody asked for are not computed: they are the largest part of all. Without a final norm the last
        # state is read, and edited, where the unembedding gets it
        whole = "logits" in self.parts or model.ln_final is None
        with torch.no_grad(), nullcontext() if whole else _nothing_unembedded(model):
            logits = model.hf(ids, use_cache=False, logits_to_keep=0 if whole else 1).logits
        if "logits" in self.parts:
            self.buffers["logits"] = self._at_kept(logits.to(model.device))
        if "rotary" in self.parts and (model.family.rotary or "").startswith("block."):
            self.buffers["rotary"] = table_rotation(model, ids.shape[1])[None, :, None].to(model.device)

    @contextmanager
    def hooks(self) -> Iterator[None]:
        with ExitStack() as stack:
            for module, side, name, layer in self._taps():
                stack.enter_context(_attached(module, side, self._writer(name, layer)))
            yield

    def _taps(self) -> Iterator[tuple[Any, str, str, int]]:
        """(module, side, name, layer) of everything to be read; `stream` holds resid_pre and resid_post at once."""
        model, family = self.model, self.model.family
        paths = self._paths()
        wanted = self.parts | {"qkv"}
        stream = bool(self.parts & {"resid_pre", "resid_post"})
        for layer in range(model.n_layers) if self.layers is None else sorted(self.layers):
            if stream:
                yield model.module(family.ln1 or family.qkv[0], layer), "in", "stream", layer
            for name, (path, side) in paths.items():
                if name in wanted:
                    module = qk_norm(model, name, layer) if name in ("q", "k") else None
                    yield module or model.module(path, layer), side, name, layer
        if stream:
            yield stream_reader(model, model.n_layers), "in", "stream", model.n_layers
        if family.rotary and not family.rotary.startswith("block.") and "rotary" in self.parts:
            yield model.module(family.rotary), "both", "rotary", 0

    def _paths(self) -> dict[str, tuple[str, str]]:
        """Name -> (path in a block, side) of what a block's modules show."""
        family = self.model.family
        paths = {
            "ln1_out": (family.qkv[0], "in"),
            "z": (family.w_o, "in"),
            "attn_out": (family.post_attn or family.w_o, "out"),
            "neurons": (family.w_out, "in"),
            "mlp_out": (family.post_mlp or family.w_out, "out"),
            "pattern": (family.attention, "second"),
        }
        if family.post_attn:
            paths |= {"attn_raw": (family.w_o, "out"), "mlp_raw": (family.w_out, "out")}
        if not family.parallel:
            paths["resid_mid"] = (family.ln2 or family.w_in, "in")
        if family.ln2 is not None:
            paths["ln2_out"] = (family.w_in, "in")
        if len(family.qkv) == 3:
            paths |= {name: (path, "out") for name, path in zip("qkv", family.qkv, strict=True)}
        elif self.parts & {"q", "k", "v"}:
            paths["qkv"] = (family.qkv[0], "out")
        same = {"ln1_out"} if family.shared_norm else {"resid_mid"} if family.ln2 is None else set()
        if "ln2_out" in self.parts and same:  # the same array under two names
            self.parts |= same
        return paths

    def _writer(self, name: str, layer: int) -> Callable[..., None]:
        model = self.model
        sets = rotation_sets(model) if name == "rotary" else []
        count = len(sets) or (model.n_layers + 1 if name == "stream" else model.n_layers)

        def write(x: Tensor, kind: str | None = None) -> None:
            place = sets.index(kind) if name == "rotary" and len(sets) > 1 else layer
            if name != "rotary":
                x = self._at_kept(self._in_batch(name, x), axis=2 if name == "pattern" else 1)
            if name not in self.buffers:
                self.buffers[name] = torch.empty((count, *x.shape), dtype=x.dtype, device=model.device)
            self.buffers[name][place].copy_(x)

        return write

    def _in_batch(self, name: str, x: Tensor) -> Tensor:
        """What a hook sees as `[batch, pos, width]`: OPT flattens the first two, norms of queries split heads."""
        if x.dim() == 2:
            return x.view(*self.shape, -1)
        if name in ("q", "k") and x.dim() == 4:
            return (x.transpose(1, 2) if self.model.family.heads_first else x).flatten(2)
        return x

    def _at_kept(self, x: Tensor, axis: int = 1) -> Tensor:
        """`x` at the kept position of each prompt, the axis staying with length 1; all of `x` where all are kept."""
        if self.kept is None:
            return x
        kept = self.kept.to(x.device)
        at = kept.view(-1, *[1] * (x.dim() - 1)).expand(*[-1 if i == 0 else n for i, n in enumerate(x.shape)])
        return x.gather(axis, at.narrow(axis, 0, 1))

    def at(self, layer: int) -> dict[str, Tensor]:
        """What is there of the first prompt's parts of a layer while the pass runs, by the record's names."""
        buffers = {name: buffer[layer : layer + 1, 0] for name, buffer in self.buffers.items() if name != "rotary"}
        return {name: part[0].clone() for name, part in self._named(buffers).items()}

    def record(
        self, row: int, ids: Sequence[int], prompt: str | Sequence[int], edits: Sequence[Applied] = ()
    ) -> Activations:
        """The record of prompt `row` of the batch, cut to its own length. `edits`: as the run was altered."""
        model, n = self.model, len(ids)
        positions = tuple(range(n)) if self.kept is None else (int(self.kept[row]),)
        single = all(b.shape[0 if name == "logits" else 1] == 1 for name, b in self.buffers.items() if name != "rotary")
        found: dict[str, Tensor] = {}
        for name, buffer in self.buffers.items():
            if name == "rotary":  # of all positions, whichever is kept; the same for every prompt of the batch
                found[name] = buffer[:, :, 0, :n]
            elif name == "logits":
                found[name] = buffer[row, : len(positions)]
            elif name == "pattern":
                found[name] = buffer[:, row, :, : len(positions), :n]
            else:
                found[name] = buffer[:, row, : len(positions)]
        if not single:  # a record must not keep the whole batch alive
            found = {name: part.clone() for name, part in found.items()}
        chat = prompt.chat if isinstance(prompt, ChatPrompt) else None
        text = prompt if isinstance(prompt, str) else chat.message if chat else model.tokenizer.decode(list(ids))
        tokens = tuple(model.vocabulary[i] for i in ids)
        return Activations(text, tuple(ids), tokens, positions, chat, tuple(edits), **self._named(found))

    def _named(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """The buffers under the record's names, heads apart; only what was asked for."""
        model, family = self.model, self.model.family
        if "stream" in found:
            stream = found.pop("stream")
            found |= {"resid_pre": stream[:-1], "resid_post": stream[1:]}
        if "qkv" in found:
            found |= dict(zip("qkv", model.split_qkv(found.pop("qkv")), strict=True))
        for name in {"q", "k", "v", "z"} & found.keys():
            if found[name].dim() == 3:
                found[name] = found[name].unflatten(-1, (-1, model.d_head))
        if family.ln2 is None:
            same = found.get("ln1_out" if family.shared_norm else "resid_mid")
            if same is not None:
                found["ln2_out"] = same
        return {name: part for name, part in found.items() if name in self.wanted}


@contextmanager
def _nothing_unembedded(model: Model) -> Iterator[None]:
    """The unembedding gets no position: of a short pass it is the largest product, also for the last one alone."""
    handle = model.unembedding.register_forward_pre_hook(lambda _module, args: (args[0][..., :0, :], *args[1:]))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _attached(module: Any, side: str, write: Callable[..., None]) -> Iterator[None]:
    """A hook that lives as long as its `with` block, and that goes even on failure."""
    if side == "in":
        handle = module.register_forward_pre_hook(lambda _module, args: write(args[0]))
    elif side == "both":  # a rotation: cos and sin; where there are several, the last argument names the layers' type
        handle = module.register_forward_hook(
            lambda _module, args, options, output: write(
                torch.stack(list(output)), options.get("layer_type", args[2] if len(args) > 2 else None)
            ),
            with_kwargs=True,
        )
    else:
        pick: dict[str, Callable[[Any], Tensor]] = {"out": lambda output: output, "second": lambda output: output[1]}
        take = pick[side]
        handle = module.register_forward_hook(lambda _module, _args, output: write(take(output)))
    try:
        yield
    finally:
        handle.remove()
