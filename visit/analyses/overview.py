"""The whole pass at a glance: what every state of the stream reads, and what every head and MLP adds to the target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import torch

from visit.activations.record import Activations, check_pass
from visit.exact.decompose import attribution, head_results, needed, rows_and_bias, value_parts
from visit.exact.influence import influence_of
from visit.exact.question import Question, ask
from visit.lenses.linear import Lens, checked, through
from visit.lenses.logit import Readings, columns_of, read, read_again, read_logits
from visit.models.model import Model
from visit.models.tokens import spelled_tokens
from visit.text.notebooks import drawn_table

SPECIFIC = 20  # times a word's mean probability over any text: from here on what a block reads is of this prompt
READ_ON = 20  # words of a state that are kept for targets to come


def lens_map(
    model: Model,
    acts: Activations,
    target: int | str | None = None,
    positions: Sequence[int] | None = None,
    k: int = 5,
    lens: Lens | None = None,
    known: Readings | None = None,
) -> pd.DataFrame:
    """Read the stream after every block at every position: layers × positions, a row a cell.

    Columns: `depth` (0 = what enters the first block, n = after n blocks), `layer` (−1 for depth 0), `state` (node
    id), `pos`, `token`, `top` and `top_prob` (the top word), `tokens`, `probs` (top k), `prob`, `rank` (of the
    target; None = the prediction at the last position), `entropy` (bits). `lens`: a fitted lens to read through (None:
    the plain one); the last state is the model's own prediction in either. With one there are also `usual` and
    `target_usual`: the mean probability of the top word and of the target at that block, whatever the text (missing in
    the embedding), and `specific`, `target_specific`: they stand here at least SPECIFIC times as high, or are the
    model's own prediction. `known`: what `stream_readings` of the same positions and lens has read, so that another
    target costs no product over the vocabulary; `rank` is then missing beyond the words read there.
    Source: the logit lens, paper eq. 2; what is specific, ours.
    """
    check_pass(model, acts)
    at = _positions(acts, positions)
    question = ask(model, acts, -1, target)
    wanted = question.target
    lens = checked(model, lens)
    stream = _stream(model, acts, at, lens)
    before = read(model, stream, wanted, k) if known is None else read_again(model, stream, known, wanted)
    before = replace(before, top_ids=before.top_ids[:, :k], top_probs=before.top_probs[:, :k])
    # the last state is the model's prediction, as the model itself rounds it
    parts = before, read_logits(model, needed(acts, "logits")[at], wanted, k)
    columns, last = (columns_of(model, part) for part in parts)
    columns = {name: values + last[name] for name, values in columns.items()}
    table = pd.DataFrame({name: columns[name] for name in ("tokens", "probs", "prob", "rank", "entropy")})
    depth = [d for d in range(model.n_layers + 1) for _ in at]
    head = pd.DataFrame({"depth": depth, "layer": [d - 1 for d in depth], "pos": at * (model.n_layers + 1)})
    if known is not None:
        table["rank"] = table["rank"].astype("Int64").where(table["rank"] > 0)
    head["state"] = ["L0.resid_pre" if d == 0 else f"L{d - 1}.resid_post" for d in depth]
    head["token"] = [acts.tokens[p] for p in head["pos"]]
    head["top"] = [words[0] for words in table["tokens"]]
    head["top_prob"] = [probs[0] for probs in table["probs"]]
    if lens is not None:
        top = torch.cat([part.top_ids[:, 0] for part in parts]).cpu()
        blocks = torch.tensor(depth) - 1
        for name, words in (("usual", top), ("target_usual", torch.full_like(top, wanted))):
            head[name] = lens.habit[blocks, words].double().masked_fill(blocks < 0, math.nan).tolist()
        last = head["depth"] == model.n_layers
        head["specific"] = (head["top_prob"] >= SPECIFIC * head["usual"]) | last
        head["target_specific"] = (table["prob"] >= SPECIFIC * head["target_usual"]) | last
    about = {**question.meta, "readable_from": None if lens is None else lens.readable_from}
    return drawn_table(head.join(table), "lens_map", about)


def stream_readings(
    model: Model, acts: Activations, positions: Sequence[int] | None = None, lens: Lens | None = None
) -> Readings:
    """What `lens_map` reads before the last block whatever its target is: the first `READ_ON` words of every state."""
    check_pass(model, acts)
    return read(model, _stream(model, acts, _positions(acts, positions), checked(model, lens)), k=READ_ON)


def _positions(acts: Activations, positions: Sequence[int] | None) -> list[int]:
    return list(range(len(acts.token_ids))) if positions is None else [acts.index(p) for p in positions]


def _stream(model: Model, acts: Activations, at: list[int], lens: Lens | None) -> torch.Tensor:
    """`[state at, d_model]`: what enters the first block, and the stream after every one but the last, carried."""
    states = [("resid_pre", 0), *(("resid_post", layer) for layer in range(model.n_layers - 1))]
    stream = torch.stack([through(lens, needed(acts, s)[n][at].to(model.wide), s, n) for s, n in states])
    return stream.flatten(0, 1)


def block_moves(
    model: Model, acts: Activations, pos: int, target: int, distractor: int | None = None,
    layers: Sequence[int] | None = None,
) -> dict[int, float]:  # fmt: skip
    """How much every block moves the target: the |contributions| of its attention and MLP outputs, added, in logits."""
    t = acts.index(pos)
    among = list(range(model.n_layers)) if layers is None else list(layers)
    frozen = attribution(model, acts, t, target, distractor)
    parts = torch.stack([needed(acts, name)[among, t] for name in ("attn_out", "mlp_out")])
    return dict(zip(among, frozen.of(parts).abs().sum(0).tolist(), strict=True))


def predictions(model: Model, acts: Activations, pos: int = -1, k: int = 10) -> pd.DataFrame:
    """The model's own next-token prediction at a position: columns `token`, `id`, `prob`, most probable first."""
    probs = needed(acts, "logits")[acts.index(pos)].to(model.wide).softmax(-1)
    top = probs.topk(min(k, model.d_vocab))
    ids = top.indices.tolist()
    return pd.DataFrame({"token": [model.vocabulary[i] for i in ids], "id": ids, "prob": top.values.tolist()})


def movers(
    model: Model, acts: Activations, pos: int, target: int, distractor: int | None = None, influence: bool = False
) -> pd.DataFrame:
    """What every part of the pass adds to the target, in logits: all heads, all MLPs, the embedding, the biases.

    Columns: `node` (id), `kind` (head, mlp_out, attn_bias, resid_pre, constant), `layer`, `head`, `contribution`
    (the rows add up to the target's logit minus the mean logit, or minus the distractor's), and for heads
    `source_pos`, `source_token`, `pattern`, `source_contribution`: the memory value that gives most of the head's push
    in the head's own direction. `influence`: a column of it, too (of heads, MLPs and biases; one more run).
    """
    t = acts.index(pos)
    frozen = attribution(model, acts, t, target, distractor)
    rows: list[dict[str, object]] = [
        {"node": "L0.resid_pre", "kind": "resid_pre", "layer": 0,
         "contribution": float(frozen.of(needed(acts, "resid_pre")[0, t]))},
        {"node": None, "kind": "constant", "layer": None, "contribution": frozen.constant},
    ]  # fmt: skip
    for layer in range(model.n_layers):
        rows += _moves(model, acts, layer, t, frozen.direction)
        bias = rows_and_bias(model, acts, layer, "attn", t)[1]
        if bias is not None:
            added = float(frozen.of(bias))
            rows.append({"node": f"L{layer}.attn_bias", "kind": "attn_bias", "layer": layer, "contribution": added})
        added = float(frozen.of(needed(acts, "mlp_out")[layer, t]))
        rows.append({"node": f"L{layer}.mlp_out", "kind": "mlp_out", "layer": layer, "contribution": added})
    table = pd.DataFrame(rows)
    if influence:
        table["influence"] = influence_of(Question(model, acts, t, target, distractor), table["node"])
    return table.astype({"layer": "Int64", "head": "Int64", "source_pos": "Int64"})


def _moves(model: Model, acts: Activations, layer: int, t: int, direction: torch.Tensor) -> list[dict[str, object]]:
    added = head_results(model, acts, layer, t) @ direction
    pattern = needed(acts, "pattern")[layer, :, t, : t + 1].to(model.wide)
    parts = pattern * value_parts(model, acts, layer, t, direction[:, None])[..., 0]
    best = torch.where(added[:, None] >= 0, parts, -parts).argmax(-1).tolist()
    tokens = spelled_tokens(model.tokenizer, acts.token_ids, acts.tokens)
    return [
        {
            "node": f"L{layer}.head{j}", "kind": "head", "layer": layer, "head": j, "contribution": float(added[j]),
            "source_pos": i, "source_token": tokens[i], "pattern": float(pattern[j, i]),
            "source_contribution": float(parts[j, i]),
        }
        for j, i in enumerate(best)
    ]  # fmt: skip
