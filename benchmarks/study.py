"""Speed and memory of a study at GPT-2 medium's width: `python benchmarks/study.py [speed|4|16|all]`.

`python benchmarks/study.py forecast MODEL FILE N…` compares the forecast with the run, tables and charts included, for
the first N prompts of a file (allowed: a factor of 1.5 either way).

4 prompts of 11 to 14 tokens (as long as the paper's), 6 layers of GPT-2 medium's size with its 50,257 words, random
weights; all figures of section 3 and appendix D. The time is compared with what cannot be saved: the batched forward
passes of the same prompts, and the bare products `[vectors, d_model] @ [d_model, d_vocab]` of all vectors that are
read (counted by `visit.studies.duration`, in chunks as large as the lens takes them). Wanted: 3 times these or less,
and as much memory for 16 prompts as for 4.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path.insert(0, str(Path(__file__).parent.parent))

LAYERS, OF_PAPER, PROMPTS_OF_PAPER = 6, 24, 100
LENGTHS = (11, 12, 13, 14)
TURNS = 2


def peak() -> float:
    """The largest resident size of this process so far, MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def wide_model() -> Any:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config

    from visit.models.catalog import MINI_FOLDER
    from visit.models.model import wrap

    torch.manual_seed(0)
    config = GPT2Config(n_layer=LAYERS, n_head=16, n_embd=1024, vocab_size=50257)
    hf = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    return wrap(hf, AutoTokenizer.from_pretrained(MINI_FOLDER), "GPT-2 medium's width")


def prompts(count: int) -> list[Any]:
    """Rows of token ids: the embedded tokenizer's words are not this model's."""
    from visit.runs.prompts import Row

    return [Row([(7919 * n + 131 * i) % 2000 for i in range(LENGTHS[n % 4])], line=n + 1) for n in range(count)]


def run(model: Any, rows: list[Any]) -> None:
    from visit.runs.job import steps
    from visit.studies.run import StudyRun
    from visit.studies.settings import ALIGNED, Settings

    for _ in steps(StudyRun(model, rows, Settings(figures=ALIGNED))):
        pass


def forwards(model: Any, rows: list[Any]) -> None:
    """The bare batched pass, nothing attached."""
    import torch

    width = max(len(row.prompt) for row in rows)
    padded = torch.tensor([[*row.prompt, *[0] * (width - len(row.prompt))] for row in rows])
    with torch.no_grad():
        model.hf(padded, use_cache=False, logits_to_keep=1)


def products(model: Any, count: int) -> None:
    """The bare products of as many vectors, a chunk at a time."""
    import torch

    from visit.lenses.logit import CHUNK_BYTES

    table, chunk = model.unembedding.weight.detach(), CHUNK_BYTES // (4 * model.d_vocab)
    x = torch.randn(chunk, model.d_model)
    with torch.no_grad():
        for start in range(0, count, chunk):
            torch.nn.functional.linear(x[: count - start], table)


def timed(call: Any) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def speed() -> None:
    from visit.studies.duration import counts, study_forecast
    from visit.studies.settings import ALIGNED, Settings

    model, rows = wide_model(), prompts(4)
    settings = Settings(figures=ALIGNED)
    parts = counts(model, [len(row.prompt) for row in rows], settings)
    total = sum(parts.values())
    products(model, 400), forwards(model, rows)
    found: dict[str, list[float]] = {"forward": [], "products": [], "study": []}
    for _ in range(TURNS):  # in turns, so that a busy moment hits all of them
        found["forward"].append(timed(lambda: forwards(model, rows)))
        found["products"].append(timed(lambda: products(model, total)))
        found["study"].append(timed(lambda: run(model, rows)))
    best = {name: min(times) for name, times in found.items()}
    bare = best["forward"] + best["products"]
    flop = 2 * total * model.d_model * model.d_vocab
    print(f"4 prompts of {LENGTHS[0]} to {LENGTHS[-1]} tokens × {LAYERS} layers × 16 heads × 1,024, 50,257 words")
    print("  " + ", ".join(f"{name} {number:,}" for name, number in parts.items()))
    print(f"  forward passes      {best['forward']:7.2f} s")
    print(f"  products            {best['products']:7.2f} s   {total:,} vectors, {flop / 1e12:.2f} TFLOP, "
          f"{flop / best['products'] / 1e9:.0f} GFLOP/s")  # fmt: skip
    print(f"  study               {best['study']:7.2f} s   ratio {best['study'] / bare:.2f} (allowed 3)")
    expected = study_forecast(model, rows, settings)["seconds"].sum()
    print(f"  forecast            {expected:7.2f} s")
    more = PROMPTS_OF_PAPER / 4 * OF_PAPER / LAYERS
    print(f"  {PROMPTS_OF_PAPER} prompts × {OF_PAPER} layers at this speed: {best['study'] * more / 60:.0f} min "
          f"(forward passes and products alone {bare * more / 60:.0f} min)")  # fmt: skip


def memory(count: int) -> None:
    model = wide_model()
    forwards(model, prompts(4))
    before = peak()
    run(model, prompts(count))
    print(f"  peak memory, {count:2d} prompts: {peak() - before:5.0f} MB over the loaded model and one forward pass")


def foretold(name: str, file: str, count: int, cold: bool) -> None:
    """The forecast of all figures against the run and its charts. `cold`: no row of the weights was read before."""
    from dataclasses import replace

    from visit import load_model, study
    from visit.figures.study import panels
    from visit.figures.svg import chart_spec
    from visit.files import study_report as report
    from visit.runs.prompts import read_prompts
    from visit.studies.duration import CHARTS, study_forecast

    model, chosen = load_model(name), read_prompts(Path(file))
    chosen = replace(chosen, rows=chosen.rows[:count])
    parts = study_forecast(model, chosen.rows)
    started = time.perf_counter()
    found = study(model, chosen)
    run = time.perf_counter() - started
    started = time.perf_counter()
    for figure in found.tables:
        for panel in panels(report.study_run(found, figure), figure):
            chart_spec(panel.chart)
    drawn = time.perf_counter() - started
    seconds = parts.set_index("part")["seconds"]
    expected = float(seconds.sum() - seconds[CHARTS])
    print(f"{model.name}, {count} prompts{', rows of the weights included' if cold else ''}")
    print(parts.to_string(index=False))
    print(f"  run    {run:7.1f} s   forecast {expected:7.1f} s   factor {run / expected:.2f} (allowed 0.67 to 1.5)")
    print(f"  charts {drawn:7.1f} s in Python alone; forecast with the browser {seconds[CHARTS]:7.1f} s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", default="all", choices=["speed", "4", "16", "all", "forecast"])
    parser.add_argument("more", nargs="*", help="of forecast: model, file, numbers of prompts")
    options = parser.parse_args()
    chosen = options.what
    if chosen == "forecast":
        import tempfile

        os.environ["VISIT_CACHE"] = tempfile.mkdtemp()
        for place, number in enumerate(options.more[2:]):
            foretold(options.more[0], options.more[1], int(number), place == 0)
    elif chosen == "speed":
        speed()
    elif chosen == "all":
        for what in ("speed", "4", "16"):  # a process each, so that peaks do not add up
            subprocess.run([sys.executable, __file__, what], check=True)
    else:
        memory(int(chosen))
