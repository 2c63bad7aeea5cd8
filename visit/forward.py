"""The forward pass, captured: the only place in the project that runs the model's own code.

Hooks sit on leaf modules (norms and linear layers), whose inputs and outputs are single tensors in every version of
transformers. One rule serves every family: `z` is the input of W_O, `neurons` the input of W_out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from visit.edits import Edit, edit_hooks
from visit.errors import VisitError
from visit.model import Model
from visit.scoring import grows, norm_module, rotation_sets, table_rotation

TOKENS_PER_BATCH = 2048  # of `capture_many`: past this, larger batches gain no speed on two cores


@dataclass(frozen=True, eq=False)
class Activations:
    """One forward pass of one prompt, without batch axis. A quantity that was not asked for is None.

    So is one that the family does not have: `resid_mid` where attention and MLP stand side by side, `rotary` without
    rotation. Where both read one norm (or none) `ln2_out` is the array of `ln1_out` (or of the stream).
    `positions` names the positions that the axis `pos` holds (all of them, or the one that `capture_many` kept).
    """

    prompt: str
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    positions: tuple[int, ...]
    resid_pre: Float[Tensor, "layer pos d_model"] | None = None
    ln1_out: Float[Tensor, "layer pos d_model"] | None = None
    q: Float[Tensor, "layer pos head d_head"] | None = None
    k: Float[Tensor, "layer pos kv_head d_head"] | None = None
    v: Float[Tensor, "layer pos kv_head d_head"] | None = None
    pattern: Float[Tensor, "layer head query key"] | None = None
    z: Float[Tensor, "layer pos head d_head"] | None = None
    attn_out: Float[Tensor, "layer pos d_model"] | None = None
    resid_mid: Float[Tensor, "layer pos d_model"] | None = None
    ln2_out: Float[Tensor, "layer pos d_model"] | None = None
    neurons: Float[Tensor, "layer pos d_mlp"] | None = None
    mlp_out: Float[Tensor, "layer pos d_model"] | None = None
    resid_post: Float[Tensor, "layer pos d_model"] | None = None
    logits: Float[Tensor, "pos d_vocab"] | None = None
    rotary: Float[Tensor, "set two pos d_rotary"] | None = None  # cos and sin of this run (Gemma 3: two sets)

    def index(self, pos: int, whole: bool = True) -> int:
        """A position (negative counts from the end) as a non-negative one; out of range: a `VisitError`.

        `whole`: refuse a record that kept one position only, whose axis `pos` cannot be indexed by position.
        """
        length = len(self.token_ids)
        if whole and len(self.positions) != length:
            raise VisitError(
                f"This record kept position {self.positions[0]} only; the analysis needs all {length}. "
                "Capture with pos=None."
            )
        if not -length <= pos < length:
            raise VisitError(
                f"The position must be from 0 to {length - 1} (or -{length} to -1) in a prompt of {length} tokens; "
                f"{pos} came."
            )
        return pos % length


PARTS = tuple(f.name for f in fields(Activations))[4:]


def tokenize(model: Model, prompt: str | Sequence[int]) -> tuple[int, ...]:
    """The prompt's token ids, by the model's own tokenizer and its defaults. Nothing is trimmed or added."""
    if isinstance(prompt, str):
        if not prompt.strip():
            raise VisitError(f"The prompt is {'blank' if prompt else 'empty'}. Type at least one word.")
        if not prompt.isascii() and any("\ud800" <= c <= "\udfff" for c in prompt):
            raise VisitError("The prompt holds bytes that are no text. Give it in UTF-8.")
        ids = tuple(model.tokenizer(prompt)["input_ids"])
    else:
        if not all(isinstance(i, int) or hasattr(i, "__index__") for i in prompt):
            raise VisitError("A prompt is a string, or a sequence of token ids (whole numbers).")
        ids = tuple(int(i) for i in prompt)
    wrong = [i for i in ids if not 0 <= i < model.d_vocab]
    if wrong or not ids:
        came = f"{wrong[0]} came" if wrong else "none came"
        raise VisitError(f"A prompt needs at least one token, with an id from 0 to {model.d_vocab - 1}; {came}.")
    if len(ids) > model.max_tokens:
        raise VisitError(
            f"{model.name} reads at most {model.max_tokens} tokens; this prompt has {len(ids)}. "
            f"Shorten it by {len(ids) - model.max_tokens} tokens."
        )
    return ids


def capture(
    model: Model, prompt: str | Sequence[int], parts: Sequence[str] | None = None, edits: Sequence[Edit] = ()
) -> Activations:
    """Run the model once on `prompt` and keep what every step of it computed.

    `parts`: names of the quantities to keep (None = all); `edits`: interventions that hold for this run alone.
    The logits are those of the plain forward pass, bit for bit. Shapes: `Activations`. Raises `VisitError` for an
    empty prompt, one longer than the model's window, or unknown parts. Source: method section 1.
    """
    ids = tokenize(model, prompt)
    recorder = _Recorder(model, _checked(parts), None)
    with model.lock, edit_hooks(model, edits, ids), recorder.hooks():
        recorder.run(torch.tensor([ids], device=model.device))
    return recorder.record(0, ids, prompt)


def capture_many(
    model: Model,
    prompts: Sequence[str | Sequence[int]],
    parts: Sequence[str] | None = None,
    pos: int | None = None,
    batch: int | None = None,
) -> Iterator[Activations]:
    """Run many prompts in batches and yield one record a prompt, in their order.

    Prompts are padded on the right and neither mask nor position ids are passed: a causal model cannot see what
    stands right of a token, so the padding changes no number (equal to single runs within 1e-5 in float32).
    `pos`: keep this position only (the axis `pos` has length 1, and so has `query`); None keeps all of them.
    `batch`: prompts per batch; None: as many as give about 2,048 tokens. The model's lock is free between batches.
    """
    wanted = _checked(parts)
    if batch is not None and batch < 1:
        raise VisitError(f"A batch holds at least one prompt; {batch} came.")
    ids = [tokenize(model, p) for p in prompts]
    start, equal = 0, grows(model)
    while start < len(ids):
        left = ids[start : start + batch] if batch else ids[start:]
        size = _fit(left, equal) if equal or not batch else batch
        group = ids[start : start + size]
        kept = None if pos is None else torch.tensor([_at(pos, i) for i in group], device=model.device)
        recorder = _Recorder(model, wanted, kept)
        width = max(map(len, group))
        padded = torch.tensor([(*i, *(0,) * (width - len(i))) for i in group], device=model.device)
        with model.lock, recorder.hooks():
            recorder.run(padded)
        for row, own in enumerate(group):
            yield recorder.record(row, own, prompts[start + row])
        start += size


def plain_logits(model: Model, ids: Sequence[int]) -> Float[Tensor, "pos d_vocab"]:
    """The logits of a forward pass with nothing attached: what identity 1 compares with."""
    with model.lock, torch.no_grad():
        return model.hf(torch.tensor([list(ids)], device=model.device), use_cache=False).logits[0]


def _at(pos: int, ids: Sequence[int]) -> int:
    if not -len(ids) <= pos < len(ids):
        raise VisitError(f"Position {pos} does not exist in a prompt of {len(ids)} tokens.")
    return pos % len(ids)


def _fit(ids: Sequence[Sequence[int]], equal: bool) -> int:
    """How many of the next prompts share a batch: padded, they hold about TOKENS_PER_BATCH tokens.

    `equal`: none is padded, since the rotation of this model depends on the longest prompt of a batch.
    """
    width = 0
    for n, own in enumerate(ids, start=1):
        width = max(width, len(own))
        if n * width > TOKENS_PER_BATCH or (equal and len(own) != len(ids[0])):
            return max(1, n - 1)
    return len(ids)


def _checked(parts: Sequence[str] | None) -> frozenset[str]:
    wanted = frozenset(PARTS if parts is None else parts)
    unknown = wanted - frozenset(PARTS)
    if unknown:
        raise VisitError(f"parts must be among {', '.join(PARTS)}; {', '.join(sorted(unknown))} came.")
    return wanted


class _Recorder:
    """The buffers of one forward pass `[layer, batch, pos, …]`, filled by hooks with exactly one copy each."""

    def __init__(self, model: Model, parts: frozenset[str], kept: Tensor | None) -> None:
        self.model, self.wanted, self.parts, self.kept = model, parts, parts, kept
        self.buffers: dict[str, Tensor] = {}
        self.shape = (0, 0)  # prompts and positions of the run

    def run(self, ids: Tensor) -> None:
        model, self.shape = self.model, (ids.shape[0], ids.shape[1])
        # logits that nobody asked for are not computed: they are the largest part of all. Without a final norm the last
        # state is read where the unembedding gets it
        whole = "logits" in self.parts or (model.ln_final is None and bool(self.parts & {"resid_pre", "resid_post"}))
        with torch.no_grad():
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
        for layer in range(model.n_layers):
            if stream:
                yield model.module(family.ln1 or family.qkv[0], layer), "in", "stream", layer
            for name, (path, side) in paths.items():
                if name in wanted:
                    module = norm_module(model, name, layer) if name in ("q", "k") else None
                    yield module or model.module(path, layer), side, name, layer
        if stream:
            last = model.ln_final or (model.project_out is not None and model.module(str(family.project_out)))
            yield last or model.unembedding, "in", "stream", model.n_layers
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

    def record(self, row: int, ids: Sequence[int], prompt: str | Sequence[int]) -> Activations:
        """The record of prompt `row` of the batch, cut to its own length."""
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
        text = prompt if isinstance(prompt, str) else model.tokenizer.decode(list(ids))
        tokens = tuple(model.vocabulary[i] for i in ids)
        return Activations(text, tuple(ids), tokens, positions, **self._named(found))

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
