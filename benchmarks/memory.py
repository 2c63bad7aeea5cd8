"""Speed and memory of the attention memory on a random model of GPT-2 small's size: `python benchmarks/memory.py`.

For prompts of 64, 512 and 1,024 tokens, a process each: the time of every function, as a ratio to the bare matrix
product of the vectors it reads with the unembedding, and the largest memory over the loaded model, capture included.
Allowed: 1 GB at 512 tokens. `python benchmarks/memory.py 512 --all` also compares every memory value (Figure 16).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path.insert(0, str(Path(__file__).parent.parent))

LENGTHS = (64, 512, 1024)
LAYERS, HEADS, WIDTH = 12, 12, 768


def resident(which: str) -> float:
    """This process's memory, MB: VmRSS now, VmHWM the largest so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) / 1024


def timed(call: Callable[[], object], repeats: int = 3) -> float:
    """The shortest of some runs, in seconds; a slow call runs once."""
    times: list[float] = []
    while len(times) < repeats and sum(times) < 10:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


def measure(length: int, every_value: bool) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config

    from visit import capture, head_memory
    from visit.analyses.attention_memory import head_summary, value_life
    from visit.analyses.heads import head_map, role_scores
    from visit.analyses.overlap import alignment_scores
    from visit.models.catalog import MINI_FOLDER
    from visit.models.model import wrap

    torch.manual_seed(0)
    config = GPT2Config(n_layer=LAYERS, n_head=HEADS, n_embd=WIDTH, vocab_size=50257)
    hf = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    model = wrap(hf, AutoTokenizer.from_pretrained(MINI_FOLDER), "small")
    _ = model.vocabulary, model.W_U_mean
    ids = torch.randint(1000, (length,)).tolist()
    capture(model, ids[:8])
    before = resident("VmRSS")
    acts = capture(model, ids)
    print(f"\n{length} tokens: record {resident('VmRSS') - before:.0f} MB over the loaded model", flush=True)
    layer, target, n = LAYERS // 2, 464, LAYERS * HEADS
    away = head_summary(model, acts, layer, 0, target=target)["contribution"] < 0
    calls: dict[str, tuple[int, Callable[[], object]]] = {
        "head_memory": (length * (4 if away else 3) + 2, lambda: head_memory(model, acts, layer, 0, target=target)),
        "head_memory, words of 20": (
            20 * (4 if away else 3) + 2,
            lambda: head_memory(model, acts, layer, 0, target=target, sources=range(20)),
        ),
        "head_summary": (2, lambda: head_summary(model, acts, layer, 0, target=target)),
        "head_map": (n + 2 * LAYERS, lambda: head_map(model, acts)),
        "role_scores": (0, lambda: role_scores(acts)),
        "value_life": (n, lambda: value_life(model, acts, length // 2)),
        "alignment_scores": (2 * n + 2 * LAYERS + 3 * n, lambda: alignment_scores(model, acts)),
    }
    if every_value:
        rows = 2 * n + 2 * LAYERS + n * length
        calls["alignment_scores, all values"] = rows, lambda: alignment_scores(model, acts, values=None)
    for name, (_, call) in calls.items():
        print(f"  {name:30s} {timed(call) * 1e3:8.0f} ms", flush=True)
    peak = resident("VmHWM") - before
    print(f"  peak memory {peak:.0f} MB over the loaded model{' (allowed 1000)' if length == 512 else ''}")
    table = model.unembedding.weight.detach()
    for name, (rows, call) in calls.items():  # after the peak is read: a bare product holds all its logits
        if 0 < rows <= 4096:
            x = torch.randn(rows, WIDTH)
            bare, ours = timed(lambda x=x: x @ table.T), timed(call)
            print(f"  {name:30s} {rows:5d} vectors, bare product {bare * 1e3:6.0f} ms, ratio {ours / bare:5.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("length", nargs="?", type=int, choices=LENGTHS)
    parser.add_argument("--all", action="store_true", help="also alignment_scores of every memory value")
    options = parser.parse_args()
    if options.length:
        measure(options.length, options.all)
    else:
        for length in LENGTHS:  # a process each, so that peaks do not add up
            subprocess.run([sys.executable, __file__, str(length), *["--all"] * options.all], check=True)
