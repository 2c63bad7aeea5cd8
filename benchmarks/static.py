"""Time and memory of the static index on a random model of GPT-2 small's size: `python benchmarks/static.py`.

The index is compared with the bare matrix products `[rows, d_model] @ [d_model, d_vocab]` of the same run, taken in
turns with it, so that a busy moment hits both.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))


def now() -> float:
    """The resident size of this process, MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def main() -> None:
    import torch
    from engine import peak, row
    from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config

    from visit.lenses import weights as static
    from visit.lenses.weights import weights_key
    from visit.models.catalog import MINI_FOLDER
    from visit.models.model import wrap

    torch.manual_seed(0)
    config = GPT2Config(n_layer=12, n_head=12, n_embd=768, vocab_size=50257)
    hf = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    model = wrap(hf, AutoTokenizer.from_pretrained(MINI_FOLDER), "small")
    table = model.unembedding.weight.detach()
    spent = {"bare": 0.0, "done": 0}

    def product(done: int, _total: int) -> None:
        """The bare product of as many rows as were just read, in pieces of the index's own size."""
        started = time.perf_counter()
        for part in torch.randn(done - int(spent["done"]), model.d_model).split(512):
            part @ table.T
        spent["bare"] += time.perf_counter() - started
        spent["done"] = done

    before = now()
    Path("/proc/self/clear_refs").write_text("5")  # the peak of loading is not the index's
    started = time.perf_counter()
    weights_key(model)
    hashed = time.perf_counter() - started
    started = time.perf_counter()
    index = static.compute(model, product)
    ours = time.perf_counter() - started - spent["bare"]
    print(f"\nGPT-2 small size: {len(index.norm):,} rows")
    row("index", ours, "matrix products", spent["bare"], 2.0)
    print(f"  peak memory {peak() - before:.0f} MB over the loaded model (allowed 300)")
    size = index.row_bytes * len(index.norm) / 1e6
    print(f"  {index.row_bytes} bytes a row (allowed 100), {size:.1f} MB; hash of the weights {hashed:.2f} s")
    times = []
    for token in range(0, 50000, 500):
        started = time.perf_counter()
        static.search_weights(index, token)
        times.append(time.perf_counter() - started)
    print(f"  search: median {1e3 * sorted(times)[50]:.1f} ms, longest {1e3 * max(times):.1f} ms (allowed 50)")


if __name__ == "__main__":
    main()
