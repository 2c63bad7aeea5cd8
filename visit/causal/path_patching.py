"""Path patching: what a head says to one later place, with everything said by way of other heads held back.

Wang et al. 2022 (App. B), in three steps for every line of a set and every head that may send:

1. The prompt and its partner ABC (the same form, other names) are run; of the partner only the sender's `z` is used.
2. The prompt runs with the sender's `z` from ABC at its position, every other head frozen at its clean value at all
   positions, MLPs and norms computed anew. Attention alone moves things between positions, and it is frozen: the stream
   differs at that one position, so that one token a run is computed, all senders as one triangular batch.
3. What receives (the query, key or value of a head, or the stream after the last block) is taken from that run and put
   into the prompt's own run, in which everything behind it is free (`causal.block`).

The effect is the change of target − distractor, in logits before a soft-cap, against a run without a sender through the
same arithmetic. `direct` is what reaches the logits past no MLP, the final norm held at the clean run's: ABC's
contribution minus the head's own.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from visit.activations.forward import capture_many
from visit.activations.record import Activations
from visit.causal.block import add_sublayers, attention_output, block_norm, projected, run_block
from visit.causal.path_lines import PathLine, Receiver, path_lines, receivers_of
from visit.causal.thresholds import ADDS, COSTS
from visit.causal.triangle import BATCH_BYTES, run_bytes
from visit.exact.decompose import attribution, needed, post_scale
from visit.lenses.logit import final_norm
from visit.models.model import Model
from visit.models.provenance import provenance
from visit.runs.answers import model_run_key
from visit.runs.job import finish
from visit.runs.moments import Moments, moments_of, no_moments
from visit.runs.sums import SumsJob, each

PathKind = Literal["q", "k", "v"]
PATH_RUN = "paths 1"  # what a run's numbers mean: raised with every change of them
PATH_PARTS = ("resid_pre", "k", "v", "z", "rotary", "resid_post")  # of the clean run


def paths(
    model: Model,
    prompts: Any,
    abc: Any = None,
    receivers: str | Iterable[str] = ("logits",),
    kind: PathKind = "q",
    sender_pos: int | str = -1,
    receiver_pos: int | str = -1,
    first_token: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """What every head sends to the receivers alone: the mean change of target − distractor over a set of prompts.

    `prompts`: a table with the columns prompt, target, distractor (DataFrame, list of dicts, file, shipped set); a
    column pos says which position is looked at (else the last). `abc`: the partners, of as many tokens each: a column
    of it (None: the column abc), a list of prompts, or a second table, line by line. `receivers`: "logits", or heads,
    whose `kind` ("q", "k", "v") is replaced: "L9.head6", of that head alone, or a shared "L9.kv_head2". Of several
    heads each is a receiver, and "together" all at once. `sender_pos`, `receiver_pos`: a position (−1 is the one looked
    at), or a column with a position or a word per line (its last place; "distractor": the repeated name). Both must be
    the same one: with all other heads frozen nothing passes between positions. `first_token`: take the first token of
    a target or distractor that has several; else its line is left out. `progress(done, total)` in lines.

    A row a receiver and sender that stands before it: `sender`, `receiver`, `effect` (logits), `low`, `high` (95 %
    band over lines, Student's), `layer`, `head` (of the sender), `direct` (of paths to the logits: past no MLP, norms
    frozen). A head in the receiver's block or after it sends nothing there and has no row. `.attrs`: `prompts` (lines
    run), `difference` (clean target − distractor, mean), `receivers` (name -> heads), `kind`, positions, `notes`
    (what was left out, and why). Raises `VisitError` for unknown receivers, and a set without a usable line.
    Source: Wang et al. 2022, App. B; causes section 13.
    """
    to = receivers_of(model, receivers, kind)
    lines, notes = path_lines(model, prompts, abc, to, sender_pos, receiver_pos, first_token)
    found = finish(path_job(model, lines, to, kind), progress)
    found.attrs |= {"sender_pos": sender_pos, "receiver_pos": receiver_pos, "notes": [str(note) for note in notes]}
    return found


# ---- over a set ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class PathSums:
    """Of the lines so far: "difference" (clean), "effect" `[receiver layer head]`, "direct" `[layer head]`."""

    parts: dict[str, Moments] = each()


def path_job(model: Model, lines: Sequence[PathLine], receivers: Sequence[Receiver], kind: PathKind) -> SumsJob:
    """Path patching as a job, a line a step; its result is the table of `paths` without the notes."""
    heads = model.n_layers, model.n_heads
    empty = PathSums(
        {"difference": no_moments(), "effect": no_moments(len(receivers), *heads), "direct": no_moments(*heads)}
    )

    def read(batch: Sequence[PathLine]) -> PathSums:
        clean = capture_many(model, [line.ids for line in batch], PATH_PARTS)
        partner = capture_many(model, [line.partner for line in batch], ("z",))
        found = [
            line_effects(model, acts, needed(other, "z")[:, line.pos], line, receivers, kind)
            for line, acts, other in zip(batch, clean, partner, strict=True)
        ]
        return PathSums({name: moments_of([one[name] for one in found]) for name in empty.parts})

    work = [1.0 + len(line.ids) / 64 for line in lines]  # so that a batch is one line at first
    return SumsJob(lines, empty, read, lambda sums: _path_table(model, sums, receivers, kind), work)


def _path_table(model: Model, sums: PathSums, receivers: Sequence[Receiver], kind: PathKind) -> pd.DataFrame:
    effect, (low, high) = sums.parts["effect"].mean, sums.parts["effect"].band
    direct, clean = sums.parts["direct"].mean, sums.parts["difference"]
    rows = [
        (
            f"L{layer}.head{head}", one.name, effect[n, layer, head], low[n, layer, head], high[n, layer, head],
            layer, head, math.nan if one.heads else direct[layer, head],
        )
        for n, one in enumerate(receivers)
        for layer in range(one.layers(model)[1])
        for head in range(model.n_heads)
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["sender", "receiver", "effect", "low", "high", "layer", "head", "direct"])
    table.attrs = {
        **provenance(model, "family", "n_layers", "n_heads"), "kind": kind, "prompts": clean.count,
        "difference": float(clean.mean) if clean.count else math.nan,
        "receivers": {one.name: [f"L{layer}.head{head}" for layer, head in one.heads] for one in receivers},
    }  # fmt: skip
    return table


def path_key(model: Model, lines: Sequence[PathLine], receivers: Sequence[Receiver], kind: PathKind) -> tuple[Any, ...]:
    """What makes two runs equal: the model, every line as it is run, who receives, and what."""
    same = hashlib.sha256(repr([(one.ids, one.partner, one.target, one.distractor, one.pos) for one in lines]).encode())
    return model_run_key(PATH_RUN, model, same.hexdigest()[:32], tuple(receivers), kind)


def inhibitors_of(heads: pd.DataFrame, sent: pd.DataFrame) -> pd.DataFrame:
    """The heads that add next to nothing and move the movers' queries against the repeated word, the strongest first.

    `heads`: `visit.head_question` of heads; `sent`: `visit.paths` to the movers' queries, whose first receiver counts.
    A row a head: `sender`, `contribution`, `effect`. Thresholds: `causal.thresholds`.
    """
    found = _sent_to_first(heads, sent)
    found = found[(found["contribution"].abs() < ADDS) & (found["effect"] < -COSTS)].sort_values("effect")
    return found[["sender", "contribution", "effect"]].reset_index(drop=True)


def inhibitors_otherwise(heads: pd.DataFrame, sent: pd.DataFrame) -> pd.DataFrame:
    """The inhibitors by their effect over the set that the movers' queries do not show, as rows of `inhibitors_of`."""
    found = _sent_to_first(heads, sent)
    rows = found[(found["role"] == "inhibitor") & ~found["sender"].isin(inhibitors_of(heads, sent)["sender"])]
    return rows[["sender", "contribution", "effect"]].reset_index(drop=True)


def _sent_to_first(heads: pd.DataFrame, sent: pd.DataFrame) -> pd.DataFrame:
    """What each head sends to the first receiver, beside what it adds and its role over the set."""
    first = sent[sent["receiver"] == sent["receiver"].iloc[0]]
    return first.merge(heads[["node", "contribution", "role"]], left_on="sender", right_on="node")


# ---- one line --------------------------------------------------------------------------------------------------------
@torch.no_grad()
def line_effects(
    model: Model,
    acts: Activations,
    z_new: Float[Tensor, "layer head d_head"],
    line: PathLine,
    receivers: Sequence[Receiver],
    kind: PathKind,
) -> dict[str, Any]:
    """ "difference" of the clean run, "effect" `[receiver layer head]` (NaN where nothing is sent), "direct".

    `acts`: the clean run of `PATH_PARTS`, which may go on behind the line; `z_new`: every head in the partner's run, at
    the line's position.
    """
    word, z_new = model.W_U(line.target) - model.W_U(line.distractor), z_new.to(model.wide)
    reads, stop = {layer for one in receivers for layer, _ in one.heads}, max(r.layers(model)[1] for r in receivers)
    effect = np.full((len(receivers), model.n_layers, model.n_heads), np.nan)
    together = max(1, BATCH_BYTES // run_bytes(model, line.pos, line.pos) // model.n_heads)  # blocks whose heads send
    for start in range(0, stop, together):
        senders = range(start, min(start + together, stop))
        last, read = _arrivals(model, acts, z_new, line.pos, senders, reads, stop, kind)
        for n, one in enumerate(receivers):
            blocks = len(range(start, min(senders.stop, one.layers(model)[1])))
            if not blocks:
                continue
            if one.heads:
                moved = {layer: _padded(read[layer], blocks * model.n_heads) for layer in {at for at, _ in one.heads}}
                answers = _received(model, acts, one, moved, kind, line, word)
            else:
                answers = final_norm(model, last) @ word
                answers = answers[1:] - answers[0]
            effect[n, start : start + blocks] = answers.unflatten(0, (blocks, -1)).double().cpu().numpy()
    clean = final_norm(model, needed(acts, "resid_post")[-1:, len(line.ids) - 1].to(model.wide)) @ word
    if model.b_U is not None:
        clean = clean + model.b_U[line.target] - model.b_U[line.distractor]
    direct = np.full(effect.shape[1:], np.nan)
    if any(not one.heads for one in receivers):
        direct = _direct(model, acts, z_new, line).double().cpu().numpy()
    return {"difference": float(clean[0]), "effect": effect, "direct": direct}


def _arrivals(
    model: Model,
    acts: Activations,
    z_new: Float[Tensor, "layer head d_head"],
    pos: int,
    senders: range,
    reads: set[int],
    stop: int,
    kind: PathKind,
) -> tuple[Float[Tensor, "run d_model"], dict[int, Float[Tensor, "run head d_head"]]]:
    """Step 2: the stream before block `stop` at `pos`, and the queries, keys or values of the blocks `reads` there.

    The first run has no sender, then come those of the heads of each block in `senders`, in their order; a block reads
    the runs whose senders stand before it.
    """
    x = torch.empty(1 + len(senders) * model.n_heads, 1, model.d_model, dtype=model.wide, device=model.device)
    x[0] = needed(acts, "resid_pre")[senders.start, pos].to(model.wide)
    here, every, found = 1, torch.arange(model.n_heads, device=model.device), {}
    for layer in range(senders.start, stop + 1):
        if layer == model.n_layers:
            break
        normed = block_norm(model, model.block_norm("ln1", layer), x[:here])
        if layer in reads:
            found[layer] = projected(model, layer, normed)["qkv".index(kind)][:, 0]
        if layer == stop:
            break
        z = needed(acts, "z")[layer, pos].to(model.wide).expand(1 + model.n_heads, -1, -1).clone()
        if layer in senders:
            z[1 + every, every] = z_new[layer]
            x[here : here + model.n_heads] = x[0]
            normed = torch.cat([normed, normed[:1].expand(model.n_heads, -1, -1)])
        attn_out = attention_output(model, layer, z.flatten(1)[:, None])
        attn_out = torch.cat([attn_out[:1].expand(here, -1, -1), attn_out[1:]])
        here = len(normed)
        x[:here] = add_sublayers(model, layer, x[:here], normed, attn_out[:here], lambda _seam, value: value)
    return x[:, 0], found


def _padded(read: Float[Tensor, "run head d_head"], senders: int) -> Float[Tensor, "sender head d_head"]:
    """What each sender changes in what a block reads; nothing where it stands in that block or after it."""
    moved = read[1 : 1 + senders] - read[0]
    return torch.cat([moved, moved.new_zeros(senders - len(moved), *moved.shape[1:])])


def _received(
    model: Model,
    acts: Activations,
    receiver: Receiver,
    moved: dict[int, Float[Tensor, "sender head d_head"]],
    kind: PathKind,
    line: PathLine,
    word: Float[Tensor, " d_model"],
) -> Float[Tensor, " sender"]:
    """Step 3: the change of the answer where the receiver's heads take what each sender has changed in their input."""
    group = 1 if kind == "q" else model.n_heads // model.n_kv_heads
    first, count = receiver.heads[0][0], len(next(iter(moved.values())))
    clean = needed(acts, "resid_pre")[first, line.pos : len(line.ids)].to(model.wide)
    size, found = max(1, BATCH_BYTES // run_bytes(model, line.pos, len(line.ids) - 1)), []
    for start in range(0, count, size):
        part = slice(start, start + size)
        x = clean.expand(1 + len(range(count)[part]), -1, -1)
        for layer in range(first, model.n_layers):
            heads = [head for at, head in receiver.heads if at == layer]

            more = moved[layer][part].repeat_interleave(group, 1)[:, heads] if heads else None

            def written(seam: str, value: Tensor, heads: list[int] = heads, more: Tensor | None = more) -> Tensor:
                if seam != kind or more is None:
                    return value
                value = value.unflatten(2, (-1, model.d_head)).repeat_interleave(group, 2)
                value[1:, 0, heads] = value[:1, 0, heads] + more  # what an earlier receiver changes there is not let in
                return value.flatten(2)

            x = run_block(model, acts, layer, x, line.pos, written)
        answers = final_norm(model, x[:, -1]) @ word
        found.append(answers[1:] - answers[0])
    return torch.cat(found)


def _direct(
    model: Model, acts: Activations, z_new: Float[Tensor, "layer head d_head"], line: PathLine
) -> Float[Tensor, "layer head"]:
    """The contribution of every head in the partner's run minus its own, all norms held at the clean run's."""
    direction = attribution(model, acts, line.pos, line.target, line.distractor).direction
    found = []
    for layer in range(model.n_layers):
        away = z_new[layer] - needed(acts, "z")[layer, line.pos].to(model.wide)
        found.append((away * (model.W_O(layer) @ direction)).sum(-1) * post_scale(model, acts, layer, "attn", line.pos))
    return torch.stack(found)
