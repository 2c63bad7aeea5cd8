"""What patching costs: `python benchmarks/patching.py [--model NAME]`. Ratios to forward passes measured beside them.

Exact maps against as many bare forward passes in batches: heads × layers at all positions, and the stream before every
block at every position. Two prompts that differ at one token, once early and once late. By attribution against two bare
forward passes and one backward pass with frozen weights.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path.insert(0, str(Path(__file__).parent.parent))

from causes import BATCH, shortest

EARLY = (
    "When Mary and John went to the store, John gave a drink to",
    "When Anna and John went to the store, John gave a drink to",
)
LATE = EARLY[0], "When Mary and John went to the store, Mary gave a drink to"
SITES = (("heads", "all"), ("resid", "each"))


def exact_maps(model: Any, prompts: tuple[str, str]) -> None:
    """Every map patched exactly, captures included, with its ratio."""
    import torch

    import visit

    for site, at in SITES:
        seconds = shortest(lambda site=site, at=at: visit.patch(model, *prompts, site, at), 2)
        ids = torch.tensor([model.tokenizer(prompts[0])["input_ids"]])
        rows = model.n_layers * (model.n_heads if site == "heads" else ids.shape[1])

        def bare(ids: Any = ids, rows: int = rows) -> None:
            with torch.no_grad():
                for part in ids.expand(rows, -1).split(BATCH):
                    model.hf(part, use_cache=False, logits_to_keep=1)

        passes = shortest(bare, 2)
        what = f"{site}, at={at}, {rows} patches of {ids.shape[1]} tokens"
        print(f"{what:50s} {seconds:6.2f} s {seconds / passes:8.3f} × bare ({passes:.2f} s; allowed 0.6)", flush=True)


def attribution(model: Any, prompts: tuple[str, str]) -> None:
    """All places from one backward pass, against two forward passes and one backward pass with frozen weights."""
    import torch

    import visit

    ids = [torch.tensor([model.tokenizer(prompt)["input_ids"]]) for prompt in prompts]

    def bare() -> None:
        with torch.no_grad():
            model.hf(ids[1], use_cache=False, logits_to_keep=1)
        with torch.enable_grad():
            x = model.hf.get_input_embeddings()(ids[0]).detach().requires_grad_()
            logits = model.hf(inputs_embeds=x, use_cache=False, logits_to_keep=1).logits[0, -1]
            torch.autograd.grad(logits[0] - logits[1], x)

    for site, at in SITES:
        calls = bare, lambda site=site, at=at: visit.patch(model, *prompts, site, at, "attribution")
        passes, ours = (min(times) for times in zip(*[[shortest(c, 1) for c in calls] for _ in range(7)], strict=True))
        print(
            f"attribution, {site:37s} {ours:6.3f} s {ours / passes:8.3f} × bare ({passes:.3f} s; allowed 1.2)",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    import visit

    model = visit.load_model(parser.parse_args().model)
    print(f"{model.name}: {model.n_layers} blocks of {model.n_heads} heads")
    for when, prompts in (("early", EARLY), ("late", LATE)):
        print(f"prompts that differ {when}:")
        attribution(model, prompts)
        exact_maps(model, prompts)


if __name__ == "__main__":
    main()
