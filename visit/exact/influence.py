"""Influence: to first order, how the target's logit changes with every part that is added to the stream.

`influence(c) = ⟨c, g⟩`, g = the gradient of the target's centred logit (or target − distractor, both before a soft-cap)
with respect to the vector that c is added to. One backward pass (`gradients_of`) serves all parts:
1. g of `attn_out` and of `mlp_out` of every block at the position (`visit.exact.gradients`).
2. A memory value is `pattern · v_i W_O[j]`, a head `z_j W_O[j]`, a neuron `a_n W_out[n]`, each past a post-norm with
   its r_t held fixed: the products with g are matrix products, no vector of a part is ever made.

Parts of one output sum to it exactly; over blocks they do not, for later blocks react. The final norm is not frozen, so
that in the last block influence and contribution differ by what the norm takes back. States have no influence: the
stream is not something that is added. Influence is linear: it foresees the effect of taking a part out, and misses
what is saturated (a softmax at 1).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from visit.activations.record import Activations
from visit.exact.decompose import needed, post_scale, value_parts
from visit.exact.gradients import gradients_of
from visit.exact.question import Question, ask
from visit.models.attention import first_visible
from visit.models.model import Model
from visit.text.node_id import NodeId


class BlockInfluence(NamedTuple):
    """The influence of every part of one block, in logits. A bias that the family does not have is None."""

    attn_out: Float[Tensor, ""]
    heads: Float[Tensor, " head"]
    values: Float[Tensor, "head source"]  # from the first source that the position sees
    attn_bias: Float[Tensor, ""] | None
    mlp_out: Float[Tensor, ""]
    neurons: Float[Tensor, " d_mlp"]
    mlp_bias: Float[Tensor, ""] | None


def influence(
    model: Model,
    acts: Activations,
    pos: int = -1,
    target: int | str | None = None,
    distractor: int | str | None = None,
) -> pd.DataFrame:
    """How the target's logit at `pos` would change, to first order, with every part that is added there.

    A row a part, block by block: `node` (its id), `layer`, `head`, `source_pos`, `neuron` (missing where the part has
    none), `influence` in logits: of heads, memory values, MLP neurons, biases, `attn_out`, `mlp_out`. Taking the part
    out is foreseen to change the target's centred logit (with a distractor: the difference) by minus that much.
    A record of an edited run is differentiated with its edits. Runs the model once forward and once backward.
    Raises `VisitError` for a wrong position or word. Source: causes section 11 (ours).
    """
    question = ask(model, acts, pos, target, distractor)
    parts = [part for layer in range(model.n_layers) for part in _part_rows(question, layer)]
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    names = ("node", "layer", "head", "source_pos", "neuron", "influence")
    table = pd.DataFrame(dict(zip(names, columns, strict=True)))
    return table.astype({"layer": int, **dict.fromkeys(names[2:5], "Int64")})


@torch.no_grad()
def block_influence(question: Question, layer: int) -> BlockInfluence:
    """The influence of all parts of one block at the question's position."""
    model, acts, t = question.model, question.acts, question.pos
    given = gradients_of(question)
    attn, mlp = given.into("attn_out", layer), given.into("mlp_out", layer)
    first = first_visible(model, layer, t)
    pattern = needed(acts, "pattern")[layer, :, t, first : t + 1].to(model.wide)
    z, a = (needed(acts, name)[layer, t].to(model.wide) for name in ("z", "neurons"))
    scales = [post_scale(model, acts, layer, part, t) for part in ("attn", "mlp")]
    biases = [model.b_O(layer), model.b_out(layer)]
    return BlockInfluence(
        attn_out=needed(acts, "attn_out")[layer, t].to(model.wide) @ attn,
        heads=(z * (model.W_O(layer) @ attn)).sum(-1) * scales[0],
        values=pattern * value_parts(model, acts, layer, t, attn[:, None])[:, first:, 0],
        attn_bias=None if biases[0] is None else (biases[0] * scales[0]) @ attn,
        mlp_out=needed(acts, "mlp_out")[layer, t].to(model.wide) @ mlp,
        neurons=a * (model.W_out(layer) @ mlp) * scales[1],
        mlp_bias=None if biases[1] is None else (biases[1] * scales[1]) @ mlp,
    )


def influence_of(question: Question, names: Iterable[str | None]) -> list[float]:
    """The influence of heads, sums and biases by their ids; NaN for what has none, as states."""
    blocks: dict[int, BlockInfluence] = {}
    found = []
    for name in names:
        node = NodeId.parse(name) if isinstance(name, str) else None
        if node is None or node.layer is None:
            found.append(math.nan)
            continue
        if node.layer not in blocks:
            blocks[node.layer] = block_influence(question, node.layer)
        block = blocks[node.layer]
        number = block.heads[node.head] if node.kind == "head" else getattr(block, node.kind, None)
        found.append(math.nan if number is None else float(number))
    return found


def _part_rows(question: Question, layer: int) -> Iterator[tuple[np.ndarray, ...]]:
    """The rows of one block, a kind of part after the other, as columns; NaN where a part has no such number."""
    found = block_influence(question, layer)
    heads, sources = np.arange(found.values.shape[0]), question.pos + 1 - np.arange(found.values.shape[1], 0, -1)
    shape = found.values.shape

    def rows(
        names: np.ndarray, numbers: Tensor, head: object = np.nan, source: object = np.nan, neuron: object = np.nan
    ) -> tuple[np.ndarray, ...]:
        numbers_of = (np.broadcast_to(np.asarray(x, dtype=float), len(names)) for x in (layer, head, source, neuron))
        return names, *numbers_of, numbers.flatten().cpu().numpy()

    yield rows(_names("attn_out", layer), found.attn_out)
    yield rows(_names("head", layer, len(heads)), found.heads, head=heads)
    each_head, each_source = np.repeat(heads, shape[1]), np.tile(sources, shape[0])
    yield rows(_names("value", layer, shape[0], question.pos, shape[1]), found.values, each_head, each_source)
    if found.attn_bias is not None:
        yield rows(_names("attn_bias", layer), found.attn_bias)
    yield rows(_names("mlp_out", layer), found.mlp_out)
    yield rows(_names("mlp_value", layer, len(found.neurons)), found.neurons, neuron=np.arange(len(found.neurons)))
    if found.mlp_bias is not None:
        yield rows(_names("mlp_bias", layer), found.mlp_bias)


@lru_cache(maxsize=2048)  # they are many, and the same in every pass
def _names(kind: str, layer: int, count: int = 1, pos: int = 0, visible: int = 0) -> np.ndarray:
    """The ids of all parts of one kind in a block; of memory values those of the last `visible` sources up to `pos`."""
    if kind == "value":
        sources = range(pos + 1 - visible, pos + 1)
        names = [str(NodeId(kind, layer, j, i)) for j in range(count) for i in sources]
    elif kind == "head":
        names = [str(NodeId(kind, layer, j)) for j in range(count)]
    elif kind == "mlp_value":
        names = [str(NodeId(kind, layer, neuron=n)) for n in range(count)]
    else:
        names = [str(NodeId(kind, layer))]
    return np.array(names, dtype=object)
