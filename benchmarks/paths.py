"""What path patching costs: `python benchmarks/paths.py [--model NAME]`. Ratios to the full passes that it replaces.

Wang et al.'s steps by full passes are two for every sender and receiver (heads frozen, then the receiver put in), one
for the logits. Measured is a line of a two-name set: every head as a sender, to the logits, and to the queries of heads
of three quarters of the depth, together; beside it as many bare forward passes in batches, and the forecast.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path.insert(0, str(Path(__file__).parent.parent))

LINE = {
    "prompt": "When Mary and John went to the store, John gave a drink to", "target": " Mary", "distractor": " John",
    "abc": "When Paul and Sarah went to the store, David gave a drink to",
}  # fmt: skip
BATCH = 64  # bare forward passes run at once
REPEATS = 3


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="smollm2")
    import torch

    import visit
    from visit.causal.cost import paths_seconds
    from visit.causal.path_lines import path_lines, receivers_of
    from visit.causal.path_patching import path_job
    from visit.runs.job import finish

    model = visit.load_model(parser.parse_args().model)
    late = 3 * model.n_layers // 4
    heads = [f"L{late}.head{head}" for head in range(min(4, model.n_heads))]
    ids = list(visit.capture(model, LINE["prompt"], ("resid_pre",)).token_ids)

    def bare(passes: int) -> float:
        best = 1e9
        for _ in range(2):
            started = time.perf_counter()
            with torch.no_grad():
                for part in torch.tensor([ids] * passes).split(BATCH):
                    model.hf(part, use_cache=False, logits_to_keep=1)
            best = min(best, time.perf_counter() - started)
        return best

    for name, receivers, passes in (
        ("the logits", receivers_of(model, "logits", "q"), model.n_layers * model.n_heads),
        ("four queries together", receivers_of(model, heads, "q")[:1], 2 * late * model.n_heads),
    ):
        lines, _ = path_lines(model, [LINE], receivers=receivers)
        times = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            finish(path_job(model, lines, receivers, "q"))
            times.append(time.perf_counter() - started)
        full, own, told = bare(passes), min(times), paths_seconds(model, lines, receivers)
        print(
            f"to {name:22s} {own:7.2f} s, {passes} bare passes {full:7.2f} s: {own / full:6.3f} × (allowed 0.15); "
            f"forecast {told:.2f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
