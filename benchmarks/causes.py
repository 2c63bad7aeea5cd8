"""What causes cost: `python benchmarks/causes.py [--model PATH]`. Ratios to forward passes measured beside them.

Influence: all parts against one forward and one backward pass. Effects: every head taken out at the last position, and
at all, against as many bare forward passes in batches; and how far the map is from one full pass a head with the same
edit.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path.insert(0, str(Path(__file__).parent.parent))

PROMPT = "When Mary and John went to the store, John gave a drink to"
BATCH = 64  # bare forward passes run at once
REPEATS = 3


def shortest(call: Callable[[], object], repeats: int = REPEATS) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


def effect_maps(model: Any, acts: Any) -> None:
    """The map of all heads, at the last position and at all, with its ratio and its distance from single edits."""
    import torch

    import visit

    ids = torch.tensor([list(acts.token_ids)] * (model.n_layers * model.n_heads))

    def bare() -> None:
        with torch.no_grad():
            for part in ids.split(BATCH):
                model.hf(part, use_cache=False, logits_to_keep=1)

    passes = shortest(bare, 2)
    print(f"{len(ids)} bare forward passes of {len(acts.tokens)} tokens      {passes:7.2f} s")
    for at, allowed in (("last", 0.15), ("all", 0.6)):
        seconds = shortest(lambda at=at: visit.effects(model, acts, at=at))
        print(f"effects of all heads, at={at:4s} {seconds:16.2f} s {seconds / passes:8.3f} × (allowed {allowed})")
    table, target, worst = visit.effects(model, acts), int(acts.logits[-1].argmax()), 0.0
    for row in table.itertuples():
        logits = visit.capture(model, acts.token_ids, ("logits",), (visit.Edit(row.node, pos=-1),)).logits[-1]
        worst = max(worst, abs(float(logits[target] - logits.mean()) - row.logit))
    share = worst / table["d_logit"].abs().max()
    print(f"farthest from one pass a head: {share:.1e} of the map's largest effect (allowed 1e-4)", flush=True)


def influences(model: Any, acts: Any) -> None:
    """The influence of all parts, against one bare forward and backward pass with frozen weights; a curve of parts."""
    import torch

    import visit

    ids, target = torch.tensor([list(acts.token_ids)]), int(acts.logits[-1].argmax())

    def bare() -> None:
        with torch.enable_grad():
            x = model.hf.get_input_embeddings()(ids).detach().requires_grad_()
            logits = model.hf(inputs_embeds=x, use_cache=False, logits_to_keep=1).logits[0, -1]
            torch.autograd.grad(logits[target] - logits.mean(), x)

    words = iter(range(1 << 20))  # another word each time, for gradients are kept with their record
    calls = bare, lambda: visit.influence(model, acts, target=next(words))
    for call in calls:
        call()
    passes, ours = (min(times) for times in zip(*[[shortest(c, 1) for c in calls] for _ in range(9)], strict=True))
    print(f"influence of all parts {ours:25.3f} s {ours / passes:8.3f} × forward + backward (allowed 1.2)")
    seconds = shortest(lambda: visit.faithfulness(model, acts), 1)
    print(f"faithfulness, 119 runs {seconds:25.3f} s {seconds / passes:8.1f} × forward + backward", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    import visit

    model = visit.load_model(parser.parse_args().model)
    acts = visit.capture(model, PROMPT)
    print(f"{model.name}: {model.n_layers * model.n_heads} heads")
    influences(model, acts)
    effect_maps(model, acts)


if __name__ == "__main__":
    main()
