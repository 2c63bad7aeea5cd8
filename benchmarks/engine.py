"""Speed and memory of the engine on random models of true sizes: `python benchmarks/engine.py [small|medium|all]`.

Every time is compared with a bare operation of the same run: a matrix product `[nodes, d_model] @ [d_model, d_vocab]`
for graphs, the plain forward pass for captures. The authors' tool needs 6.0 s for one block of a GPT-2-small-size model
and 7.3 s for one of medium size on two cores.
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

SIZES = {"small": (12, 12, 768), "medium": (24, 16, 1024)}
PROMPT = list(range(464, 464 + 15))  # as long as "When Mary and John went to the store, John gave a drink to"
REPEATS = 5


def best(*calls: Callable[[], object]) -> list[float]:
    """The shortest of several runs of each call, taken in turns, so that a busy moment hits all of them."""
    times = [[] for _ in calls]  # type: ignore[var-annotated]
    for _ in range(REPEATS):
        for call, found in zip(calls, times, strict=True):
            started = time.perf_counter()
            call()
            found.append(time.perf_counter() - started)
    return [min(found) for found in times]


def peak() -> float:
    """The largest resident size of this process so far, MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def measure(size: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, GPT2Config

    from visit import Keep, build_flow_graph, capture
    from visit.activations.forward import plain_logits
    from visit.models.catalog import MINI_FOLDER
    from visit.models.model import wrap

    layers, heads, width = SIZES[size]
    torch.manual_seed(0)
    config = GPT2Config(n_layer=layers, n_head=heads, n_embd=width, vocab_size=50257)
    from transformers import AutoTokenizer

    hf = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    model = wrap(hf, AutoTokenizer.from_pretrained(MINI_FOLDER), size)
    weights = sum(p.numel() * p.element_size() for p in hf.parameters()) / 1e6
    prompt = PROMPT
    plain_logits(model, prompt)
    before = peak()
    acts = capture(model, prompt)
    keep = Keep(heads=None, values=2, attn_neurons=(15, 15), mlp_neurons=(15, 15))
    print(f"\nGPT-2 {size} size: {layers} blocks × {heads} heads × {width}, {weights:.0f} MB of weights, 15 tokens")
    build_flow_graph(model, acts, keep=keep)
    ours = peak() - before  # read before any bare product, which holds all logits at once
    forward, captured = best(lambda: plain_logits(model, prompt), lambda: capture(model, prompt))
    row("capture", captured, "plain forward", forward, 1.3)
    table = model.unembedding.weight.detach()
    for name, shown in (("one block", [layers // 2]), (f"all {layers} blocks", None)):
        nodes = len(build_flow_graph(model, acts, layers=shown, keep=keep).nodes)
        x = torch.randn(nodes, width)
        product, built = best(
            lambda x=x: x @ table.T, lambda s=shown: build_flow_graph(model, acts, layers=s, keep=keep)
        )
        row(f"graph, {name}, {nodes} nodes", built, "matrix product", product, 2.5)
    print(f"  peak memory {ours:.0f} MB over the loaded model and one plain forward pass (allowed 500)")


def row(name: str, ours: float, other: str, bare: float, allowed: float) -> None:
    times = f"{name:34s} {ours * 1e3:8.0f} ms   {other} {bare * 1e3:6.0f} ms"
    print(f"  {times}   ratio {ours / bare:5.2f} (allowed {allowed})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("size", nargs="?", default="all", choices=[*SIZES, "all"])
    chosen = parser.parse_args().size
    if chosen == "all":
        for size in SIZES:  # a process each, so that peaks do not add up
            subprocess.run([sys.executable, __file__, size], check=True)
    else:
        measure(chosen)
