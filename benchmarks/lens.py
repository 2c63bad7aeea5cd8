"""What a fitted lens costs: `python benchmarks/lens.py [--model smollm2] [--tokens 8000] [--lens FILE]`.

Fitting (the model writes, its states are added up, maps are solved for, the report is made), beside the bare work that
any such fit needs, of the same shapes: the cached forward passes over the same words without anything recorded, the
products X'X and X'Y of every state in float64, the solutions, and the products of the report with W_U. Memory: the
largest resident size over the loaded model. Reading: the lens map of one prompt, through the lens and plainly.

Allowed on two idle cores: 60 s and 1.3 × the bare work for 8,000 tokens on SmolLM2, 1 GB over the weights, 1.25 × the
plain reading.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path.insert(0, str(Path(__file__).parent.parent))

PROMPT = "When Mary and John went to the store, John gave a drink to"
REPEATS = 7


def resident(which: str) -> float:
    """This process's memory, MB: VmRSS now, VmHWM the largest so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) / 1024


def fit(model: Any, tokens: int) -> Any:
    """Fit a lens step by step; the bare work of its own shapes afterwards."""
    from visit.lenses.fit_linear import LensFit

    model.hf(input_ids=_ids(model, [[1, 2, 3]]), use_cache=False)  # the first pass allocates
    before, took = resident("VmRSS"), defaultdict(float)
    job = LensFit(model, tokens)
    for item in job.items:
        started = time.perf_counter()
        job.update([item])
        took[item.kind] += time.perf_counter() - started
    peak = resident("VmHWM") - before
    names = {"feed": "writing and adding up", "solve": "solving", "report": "the report"}
    for kind, name in names.items():
        print(f"{name:42s} {took[kind]:7.1f} s", flush=True)
    whole = sum(took.values())
    bare = {
        "bare cached forward passes": forwards(model, job), "bare products X'X and X'Y, float64": sums(model, job),
        "bare solutions": solutions(model, job), "bare products with W_U": readings(model, job),
    }  # fmt: skip
    for name, seconds in bare.items():
        print(f"{name:42s} {seconds:7.1f} s", flush=True)
    ratio = whole / sum(bare.values())
    print(f"{'the fit of ' + format(tokens, ',') + ' tokens':42s} {whole:7.1f} s   (allowed 60 on two idle cores)")
    print(f"{'… against the bare work':42s} {ratio:7.2f} ×   (allowed 1.3)")
    print(f"{'… memory over the loaded model':42s} {peak:7.0f} MB  (allowed 1,000)", flush=True)
    return job.snapshot()


def forwards(model: Any, job: Any) -> float:
    """The passes that write and read every batch, a token at a time with their cache, and the last logits."""
    import torch

    started = time.perf_counter()
    with torch.no_grad():
        for rows in job.batches:
            cache = None
            ids = torch.from_numpy(job.ids[rows]).to(model.device)
            for step in range(ids.shape[1]):
                found = model.hf(ids[:, step : step + 1], past_key_values=cache, use_cache=True, logits_to_keep=1)
                cache = found.past_key_values
    return time.perf_counter() - started


def sums(model: Any, job: Any) -> float:
    """Two products in float64 for every state and part of the rows."""
    import torch

    from visit.lenses.least_squares import PART

    count = sum(rows.stop - rows.start for rows in job.batches[:-1]) * (job.ids.shape[1] - 1)
    rows = torch.randn(PART, model.d_model, dtype=torch.float64, device=model.device)
    total = torch.zeros(model.d_model, model.d_model, dtype=torch.float64, device=model.device)
    started = time.perf_counter()
    for _ in range(2 * len(job.sites) * count // PART):
        total.addmm_(rows.T, rows)
    return time.perf_counter() - started


def solutions(model: Any, job: Any) -> float:
    """A system of d_model equations for every state."""
    import torch

    own = torch.randn(model.d_model, model.d_model, dtype=torch.float64, device=model.device)
    started = time.perf_counter()
    for _ in job.sites:
        torch.linalg.solve(own, own)
    return time.perf_counter() - started


def readings(model: Any, job: Any) -> float:
    """The report's states with W_U: every block, plain and fitted."""
    import torch

    from visit.lenses.fit_linear import COMPARED

    rows = torch.randn(COMPARED, model.d_model, dtype=model.wide, device=model.device)
    weight = model.unembedding.weight.detach().to(model.wide)
    started = time.perf_counter()
    for _ in range(2 * model.n_layers * -(-job.reported // COMPARED)):
        torch.nn.functional.linear(rows, weight)
    return time.perf_counter() - started


def reading(model: Any, lens: Any) -> None:
    """The map of one prompt, plainly and through the lens, in turns; the shortest of each."""
    from visit import capture
    from visit.analyses.overview import lens_map

    acts = capture(model, PROMPT)
    target = int(acts.logits[-1].argmax())
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(REPEATS):
        for fitted in times:
            started = time.perf_counter()
            lens_map(model, acts, target, lens=lens if fitted else None)
            times[fitted].append(time.perf_counter() - started)
    plain, through = (min(found) for found in times.values())
    print(f"{'lens map, plainly':42s} {plain:7.3f} s")
    print(f"{'lens map, through the lens':42s} {through:7.3f} s   {through / plain:.2f} × (allowed 1.25)")


def _ids(model: Any, rows: list[list[int]]) -> Any:
    import torch

    return torch.tensor(rows, device=model.device)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--model", default="smollm2")
    options.add_argument("--tokens", type=int, default=8000)
    options.add_argument("--lens", help="read through this file's lens, and fit none")
    chosen = options.parse_args()
    import visit

    model = visit.load_model(chosen.model)
    print(f"{model.name}, {model.n_layers} blocks, d_model {model.d_model}, {model.device}")
    lens = visit.load_lens(chosen.lens) if chosen.lens else fit(model, chosen.tokens)
    reading(model, lens)


if __name__ == "__main__":
    main()
