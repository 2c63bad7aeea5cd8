"""The nodes and edges of one block, drafted as rows and vectors; `visit.graph.build` projects them all at once."""

from __future__ import annotations

import torch

from visit.graph.draft import Draft, percent
from visit.graph.draft_attention import add_attention, add_largest_heads
from visit.graph.draft_mlp import add_mlp
from visit.graph.prune import share
from visit.lenses.logit import final_norm


def add_gap(draft: Draft, before: int | None, layer: int) -> None:
    """The state that enters a block which does not follow the one before, and what the blocks between added."""
    here = f"L{layer}.resid_pre"
    entering = draft.state("resid_pre", layer)
    draft.node(here, "resid_pre", entering, adds=True, layer=layer)
    if before is None:
        return
    first, last = before + 1, layer - 1
    name = f"L{first}.rest" if first == last else f"L{first}-{last}.rest"
    words = f"layer {first}" if first == last else f"layers {first}–{last}"
    carried = draft.state("resid_post", before)
    vectors = torch.stack([carried, entering - carried])
    size = draft.frozen.of(vectors).abs() if draft.keep.by == "contribution" else vectors.norm(dim=-1)
    draft.shares[here] = share(size, [0])
    draft.node(name, "rest", vectors[1], adds=True, label=f"{words}: {percent(1 - draft.shares[here])}")
    draft.edge(f"L{before}.resid_post", here, "residual", carries=f"L{before}.resid_post")
    draft.edge(name, here, "add", carries=name)


def add_block(draft: Draft, layer: int) -> None:
    """All nodes and edges of one block, in the order in which the data flows."""
    at, family = f"L{layer}", draft.model.family
    follows = draft.last_layer is not None and draft.last_layer == layer - 1
    entering = f"L{layer - 1}.resid_post" if follows else f"{at}.resid_pre"
    draft.reads["attn"] = _add_norm(draft, "ln1", entering, layer)
    add_attention(draft, layer)
    middle = entering if family.parallel else _add_state(draft, "resid_mid", layer, entering, ("attn_out",))
    draft.reads["mlp"] = draft.reads["attn"] if family.shared_norm else _add_norm(draft, "ln2", middle, layer)
    add_mlp(draft, layer)
    added = ("attn_out", "mlp_out") if family.parallel else ("mlp_out",)
    _add_state(draft, "resid_post", layer, middle, added)
    draft.last_layer = layer


def add_folded(draft: Draft, layer: int) -> None:
    """A block as its folded drawing shows it: states, what its parts add, the largest heads, the rest of the heads."""
    at, family = f"L{layer}", draft.model.family
    follows = draft.last_layer is not None and draft.last_layer == layer - 1
    entering = f"L{layer - 1}.resid_post" if follows else f"{at}.resid_pre"
    add_largest_heads(draft, layer, entering)
    middle = entering if family.parallel else _add_state(draft, "resid_mid", layer, entering, ("attn_out",))
    draft.node(f"{at}.mlp_out", "mlp_out", draft.state("mlp_out", layer), adds=True, layer=layer)
    draft.edge(middle, f"{at}.mlp_out", "multiply")
    _add_state(draft, "resid_post", layer, middle, ("attn_out", "mlp_out") if family.parallel else ("mlp_out",))
    draft.last_layer = layer


def _add_norm(draft: Draft, norm: str, state: str, layer: int) -> str:
    """The output of a block's norm, and its id; the stream itself where the family has no such norm."""
    if getattr(draft.model.family, norm) is None:
        return state
    name = f"L{layer}.{norm}_out"
    draft.node(name, f"{norm}_out", draft.state(f"{norm}_out", layer), adds=False, layer=layer)
    draft.edge(state, name, "norm", carries=state)
    return name


def _add_state(draft: Draft, state: str, layer: int, before: str, added: tuple[str, ...]) -> str:
    """A state of the stream: the one before it and what sub-layers add to it."""
    name = f"L{layer}.{state}"
    vector = draft.state(state, layer)
    draft.node(name, state, vector, adds=True, layer=layer)
    for part in added:
        draft.edge(f"L{layer}.{part}", name, "add", carries=f"L{layer}.{part}")
    draft.edge(before, name, "residual", carries=before)
    carried = draft.state("resid_mid" if before == f"L{layer}.resid_mid" else "resid_pre", layer)
    draft.check(sum((draft.state(part, layer) for part in added), start=carried), vector)
    return name


def add_predictions(draft: Draft) -> None:
    """After the last block: the final norm and the logits. Both read as the model's own prediction."""
    last = f"L{draft.model.n_layers - 1}.resid_post"
    normed = final_norm(draft.model, draft.state("resid_post", draft.model.n_layers - 1)[None])[0]
    draft.node("ln_final", "ln_final", normed, adds=False)
    draft.edge(last, "ln_final", "norm", carries=last)
    draft.node("logits", "logits", normed, adds=False)
    draft.edge("ln_final", "logits", "multiply")
