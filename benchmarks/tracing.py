"""What a causal trace costs: `python benchmarks/tracing.py [--model PATH] [--samples N]`.

A trace against as many bare forward passes in batches as it has restored runs (three maps × blocks × positions from the
subject on × samples; of one sample, times the samples), the forecast against what it took, and how far cells are from
one full pass each of the model's own code with the same noise and the same states put back.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path.insert(0, str(Path(__file__).parent.parent))

PROMPT, SUBJECT = "The capital of Japan is the city of", "Japan"
BATCH = 64  # bare forward passes run at once


def bare_seconds(model: Any, acts: Any, runs: int) -> float:
    """So many plain passes of the prompt in batches, read at the last position."""
    import torch

    ids = torch.tensor([list(acts.token_ids)] * BATCH)
    started = time.perf_counter()
    with torch.no_grad():
        for start in range(0, runs, BATCH):
            model.hf(ids[: min(BATCH, runs - start)], use_cache=False, logits_to_keep=1)
    return time.perf_counter() - started


def farthest(model: Any, acts: Any, table: Any) -> float:
    """The largest difference of a cell of one sample from a full pass, in probability."""
    import torch

    import visit
    from visit.activations.sites import in_record

    (at,) = table.attrs["subject"]["positions"]
    rows = in_record(model, acts, "embed", 0)[[at]]
    draw = torch.randn(1, model.d_model, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = visit.Edit("embed", "add", (3 * float(rows.double().std()) * draw).to(rows), at)
    worst = 0.0
    for row in table[table["pos"] >= at].iloc[::23].itertuples():
        name = "resid_post" if row.site == "resid" else row.site
        back = [visit.Edit(f"L{n}.{name}", "from", acts, row.pos) for n in range(row.first, row.last + 1)]
        logits = visit.capture(model, acts.token_ids, ("logits",), [noise, *back]).logits[-1]
        worst = max(worst, abs(float(logits.softmax(-1)[table.attrs["target"]["id"]]) - row.prob))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--samples", type=int, default=2)
    options = parser.parse_args()
    import visit
    from visit.causal.cost import trace_cost
    from visit.causal.trace_plan import subject_positions
    from visit.exact.question import ask

    model = visit.load_model(options.model)
    acts = visit.capture(model, PROMPT)
    cost = trace_cost(ask(model, acts), subject_positions(acts, SUBJECT), options.samples, None)
    print(f"{model.name}: {cost.parts:,} cells of {len(acts.tokens)} tokens, {options.samples} samples", flush=True)
    bare_seconds(model, acts, BATCH)  # the first one warms up
    passes = bare_seconds(model, acts, cost.parts) * options.samples
    started = time.perf_counter()
    visit.trace(model, PROMPT, SUBJECT, samples=options.samples)
    seconds = time.perf_counter() - started
    print(f"{cost.parts * options.samples:,} bare forward passes {passes:10.1f} s")
    print(f"the trace {seconds:22.1f} s {seconds / passes:8.3f} × (allowed 0.4; forecast {cost.seconds:.1f} s)")
    worst = farthest(model, acts, visit.trace(model, PROMPT, SUBJECT, samples=1))
    print(f"farthest from one pass a cell: {worst:.1e} of probability (allowed 1e-4)", flush=True)


if __name__ == "__main__":
    main()
