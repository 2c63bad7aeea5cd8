"""The forward pass, captured: the only place in the project that runs the model's own code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from visit.activations.edit_hooks import counted, edit_hooks
from visit.activations.edits import Applied, Edit, applied
from visit.activations.hooks import Recorder
from visit.activations.record import PARTS, Activations, Gradients
from visit.errors import VisitError
from visit.models.attention import grows
from visit.models.model import Model

__all__ = [
    "PARTS", "Activations", "Edit", "Gradients", "capture", "capture_many", "gradients", "plain_logits", "tokenize",
]  # fmt: skip
TOKENS_PER_BATCH = 2048  # of `capture_many`: past this, larger batches gain no speed on two cores
GRAPH_BYTES = 1 << 30  # of `gradients`: what autograd may keep of a pass before blocks are computed a second time


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
        got = f"got {wrong[0]}" if wrong else "got none"
        raise VisitError(f"A prompt needs at least one token, with an id from 0 to {model.d_vocab - 1}; {got}.")
    if len(ids) > model.max_tokens:
        raise VisitError(
            f"{model.name} reads at most {model.max_tokens} tokens; this prompt has {len(ids)}. "
            f"Shorten it by {len(ids) - model.max_tokens} tokens."
        )
    return ids


def capture(
    model: Model, prompt: str | Sequence[int], parts: Sequence[str] | None = None, edits: Sequence[Edit | Applied] = ()
) -> Activations:
    """Run the model once on `prompt` (a text, token ids, or `chat_prompt`'s) and keep what every step computed.

    `parts`: names of the quantities to keep (None = all); `edits`: interventions that hold for this run alone, each at
    its own positions; the record is that of the edited run, and says which they were.
    The logits are those of the plain forward pass, bit for bit. Shapes: `Activations`. Raises `VisitError` for an
    empty prompt, one longer than the model's window, unknown parts, or edits that cannot be made (`Edit`).
    Source: method section 1; edits: causes, section 12.
    """
    ids = tokenize(model, prompt)
    recorder, made = Recorder(model, _known_parts(parts)), applied(model, edits, ids)
    with model.lock, edit_hooks(model, made, len(ids)) as counts, recorder.hooks():
        recorder.run(torch.tensor([ids], device=model.device))
    return recorder.record(0, ids, prompt, counted(made, counts))


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
    wanted = _known_parts(parts)
    if batch is not None and batch < 1:
        raise VisitError(f"A batch holds at least one prompt; got {batch}.")
    ids = [tokenize(model, p) for p in prompts]
    start, equal = 0, grows(model)
    while start < len(ids):
        left = ids[start : start + batch] if batch else ids[start:]
        size = _fit(left, equal) if equal or not batch else batch
        group = ids[start : start + size]
        kept = None if pos is None else torch.tensor([_at(pos, i) for i in group], device=model.device)
        recorder = Recorder(model, wanted, kept)
        width = max(map(len, group))
        # a prompt's own last token fills it up: at the padding token transformers would warn of a missing mask
        padded = torch.tensor([(*i, *i[-1:] * (width - len(i))) for i in group], device=model.device)
        with model.lock, recorder.hooks():
            recorder.run(padded)
        for row, own in enumerate(group):
            yield recorder.record(row, own, prompts[start + row])
        start += size


def plain_logits(model: Model, ids: Sequence[int], edits: Sequence[Applied] = ()) -> Float[Tensor, "pos d_vocab"]:
    """The logits of a forward pass with nothing attached but `edits`: what identity 1 compares with."""
    with model.lock, torch.no_grad(), edit_hooks(model, edits, len(ids)):
        return model.hf(torch.tensor([list(ids)], device=model.device), use_cache=False).logits[0]


def gradients(
    model: Model, acts: Activations, pos: int, word: Float[Tensor, " d_model"], every: bool = False
) -> Gradients:
    """∂⟨x, word⟩ with respect to what attention and MLP of every block add to the stream: one forward, one backward.

    x: what leaves the final norm at `pos`, so that with `word` = U_w − mean_u U_u the number is the target's centred
    logit before a soft-cap. The run is that of the record, its edits included. In three steps:
    1. A vector of zeros is added where the stream takes what a sub-layer gives (past a post-norm, where there is one).
    2. The model's own code runs with frozen weights: autograd follows these zeros and nothing else.
    3. One backward pass gives the gradient of each.
    `every`: of all positions, not of `pos` alone. Where the pass would keep more than `GRAPH_BYTES`, the blocks are
    computed a second time on the way back, one after the other. Source: causes section 11.
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

    places = {"attn_out": family.post_attn or family.w_o, "mlp_out": family.post_mlp or family.w_out}
    last = model.unembedding if model.project_out is None else model.module(str(family.project_out))
    large = _graph_bytes(model, length) > GRAPH_BYTES
    with model.lock, torch.enable_grad(), edit_hooks(model, acts.edits, length), ExitStack() as stack:
        for layer in range(model.n_layers):
            for name, path in places.items():
                module, key = model.module(path, layer), (name, layer)
                hook = module.register_forward_hook(lambda _m, _args, output, key=key: added(key, output))
                stack.callback(hook.remove)
        stack.callback(last.register_forward_pre_hook(lambda _m, args: seen.update(x=args[0])).remove)
        if large:
            stack.enter_context(_recomputed(model))
        # only what stands from `pos` on is unembedded; nothing but its input is used
        model.hf(torch.tensor([acts.token_ids], device=model.device), use_cache=False, logits_to_keep=length - pos)
        number = seen["x"].reshape(-1, model.d_model)[pos - length].to(model.wide) @ word.to(seen["x"].device)
        found = torch.autograd.grad(number, list(zeros.values()))
    by_key = {
        key: g.reshape(-1, model.d_model).to(model.device, model.wide) for key, g in zip(zeros, found, strict=True)
    }
    return Gradients(
        pos, tuple(range(length)) if every else (pos,),
        **{name: torch.stack([by_key[name, layer] for layer in range(model.n_layers)]) for name in places},
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


def _known_parts(parts: Sequence[str] | None) -> frozenset[str]:
    wanted = frozenset(PARTS if parts is None else parts)
    unknown = wanted - frozenset(PARTS)
    if unknown:
        raise VisitError(f"parts must be among {', '.join(PARTS)}; got {', '.join(sorted(unknown))}.")
    return wanted
