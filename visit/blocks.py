"""The nodes and edges of one block, drafted as rows and vectors; `visit.graph` projects them all at once."""

from __future__ import annotations

import torch

from visit.draft import Draft, percent
from visit.draft_attention import add_attention
from visit.draft_mlp import add_mlp
from visit.keep import share
from visit.lens import final_norm


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
    """All nodes and edges of one sequential block, in the order in which the data flows."""
    at = f"L{layer}"
    follows = draft.last_layer is not None and draft.last_layer == layer - 1
    entering = f"L{layer - 1}.resid_post" if follows else f"{at}.resid_pre"
    draft.node(f"{at}.ln1_out", "ln1_out", draft.state("ln1_out", layer), adds=False, layer=layer)
    draft.edge(entering, f"{at}.ln1_out", "norm", carries=entering)
    add_attention(draft, layer)
    draft.node(f"{at}.resid_mid", "resid_mid", draft.state("resid_mid", layer), adds=True, layer=layer)
    draft.edge(f"{at}.attn_out", f"{at}.resid_mid", "add", carries=f"{at}.attn_out")
    draft.edge(entering, f"{at}.resid_mid", "residual", carries=entering)
    draft.node(f"{at}.ln2_out", "ln2_out", draft.state("ln2_out", layer), adds=False, layer=layer)
    draft.edge(f"{at}.resid_mid", f"{at}.ln2_out", "norm", carries=f"{at}.resid_mid")
    add_mlp(draft, layer)
    draft.node(f"{at}.resid_post", "resid_post", draft.state("resid_post", layer), adds=True, layer=layer)
    draft.edge(f"{at}.mlp_out", f"{at}.resid_post", "add", carries=f"{at}.mlp_out")
    draft.edge(f"{at}.resid_mid", f"{at}.resid_post", "residual", carries=f"{at}.resid_mid")
    draft.check(draft.state("resid_pre", layer) + draft.state("attn_out", layer), draft.state("resid_mid", layer))
    draft.check(draft.state("resid_mid", layer) + draft.state("mlp_out", layer), draft.state("resid_post", layer))
    draft.last_layer = layer


def add_predictions(draft: Draft) -> None:
    """After the last block: the final norm and the logits. Both read as the model's own prediction."""
    last = f"L{draft.model.n_layers - 1}.resid_post"
    normed = final_norm(draft.model, draft.state("resid_post", draft.model.n_layers - 1)[None])[0]
    draft.node("ln_final", "ln_final", normed, adds=False)
    draft.edge(last, "ln_final", "norm", carries=last)
    draft.node("logits", "logits", normed, adds=False)
    draft.edge("ln_final", "logits", "multiply")
