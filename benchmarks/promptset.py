"""Speed and memory of a streaming statistic over a prompt set: `python benchmarks/promptset.py [100|10000|all]`.

Neuron counts (how often each neuron is among the 2.44 % largest |a_n| of its layer at the last token) through the
worker, against the bare batched forward pass of the same prompts in the same batches without any hook. Wanted: 0.8 of
its prompts per second or more, and memory that does not grow with the number of prompts.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path.insert(0, str(Path(__file__).parent.parent))

SHARE = 0.0244  # of the neurons of a layer, as in the paper
SIZES = (100, 10_000)
WARM = 2000


def resident(which: str) -> float:
    """This process's memory, MB: VmRSS now, VmHWM the largest so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) / 1024


def jobs(model: Any) -> tuple[Any, Any]:
    """Two classes of jobs over rows of prompts: the counts, and the bare pass."""
    import torch

    from visit.activations.forward import _fit, capture_many
    from visit.models.model import tokenize

    class Bare:
        def __init__(self, items: Sequence[Any], logits: int = 1) -> None:
            self.items, self.logits = items, logits

        def update(self, rows: Sequence[Any]) -> None:
            ids = [tokenize(model, row.prompt) for row in rows]
            while ids:
                group = ids[: _fit(ids, False)]
                width = max(map(len, group))
                padded = torch.tensor([(*i, *(0,) * (width - len(i))) for i in group], device=model.device)
                with model.lock, torch.no_grad():
                    model.hf(padded, use_cache=False, logits_to_keep=self.logits)
                ids = ids[len(group) :]

        def snapshot(self) -> None: ...
        def state(self) -> dict[str, Any]:
            return {}

        def load(self, state: dict[str, Any]) -> None:
            raise ValueError

    class Often(Bare):
        def __init__(self, items: Sequence[Any]) -> None:
            super().__init__(items)
            self.n, self.often = 0, 0

        def update(self, rows: Sequence[Any]) -> None:
            records = capture_many(model, [row.prompt for row in rows], parts=("neurons",), pos=-1)
            a = torch.stack([record.neurons[:, 0] for record in records]).abs()  # [n, layer, d_mlp]
            limit = a.topk(round(SHARE * model.d_mlp), dim=-1).values[..., -1:]
            self.n += len(a)
            self.often = self.often + (a >= limit).sum(0).numpy()

        def snapshot(self) -> Any:
            return self.often / self.n

        def state(self) -> dict[str, Any]:
            return {"n": np.array(self.n), "often": np.asarray(self.often)}

        def load(self, state: dict[str, Any]) -> None:
            self.n, self.often = int(state["n"]), state["often"]

    return Bare, Often


def measure(n: int) -> None:
    from visit import load_model
    from visit.runs.job import steps
    from visit.runs.prompts import shipped, shipped_set
    from visit.runs.worker import Worker

    model = load_model("visit-mini")
    rows = [row for name in shipped(model.name) for row in shipped_set(name, model.name).rows]
    rows = (rows * -(-n // len(rows)))[:n]
    bare, often = jobs(model)
    worker = Worker(Path(tempfile.mkdtemp()))
    worker.submit("warm up", lambda: often((rows * 20)[:WARM])).wait()  # a batch of every size and width has been seen
    before = resident("VmHWM")
    share = worker.submit("all", lambda: often(rows)).wait()
    grown = resident("VmHWM") - before  # read before any bare pass, whose logits of all positions are large
    times: dict[str, list[float]] = {"bare, last logits": [], "bare, all logits": [], "counts": []}
    for turn in range(7 if n < 1000 else 2):  # in turns, so that a busy moment hits all of them
        times["bare, last logits"].append(_timed(lambda: list(steps(bare(rows)))))
        times["counts"].append(_timed(lambda turn=turn: worker.submit(turn, lambda: often(rows)).wait()))
    times["bare, all logits"].append(_timed(lambda: list(steps(bare(rows, 0)))))
    best = {name: min(found) for name, found in times.items()}
    print(f"{n:,} prompts, visit-mini, {model.n_layers} layers × {model.d_mlp} neurons; mean share {share.mean():.4f}")
    for name, seconds in best.items():
        print(
            f"  {name:20s} {n / seconds:7.0f} prompts/s   counts at {seconds / best['counts']:.2f} of it (wanted 0.8)"
        )
    print(f"  peak memory: {grown:.1f} MB over that of a run of {WARM:,} prompts")


def _timed(call: Any) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompts", nargs="?", default="all")
    chosen = parser.parse_args().prompts
    if chosen == "all":
        for size in SIZES:  # a process each, so that peaks do not add up
            subprocess.run([sys.executable, __file__, str(size)], check=True)
    else:
        measure(int(chosen))
