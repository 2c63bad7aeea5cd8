"""What a question over a set takes: `python benchmarks/heads.py [--model PATH] [--prompts 100] [--how zero]`.

Every head over prompts of 12 tokens, by effect at the last position, through the job that page and command run; beside
it the forecast that they show, and what the same prompts take as single maps. Wanted on two idle cores: 100 prompts of
SmolLM2 in at most 3 minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path.insert(0, str(Path(__file__).parent.parent))

TOKENS, WANTED = 12, 180.0  # seconds for 100 prompts
SINGLE = 5  # prompts measured one by one, for the ratio


def main() -> None:
    import visit
    from visit.causal.head_sets import HeadRun
    from visit.causal.set_cost import question_seconds
    from visit.causal.set_lines import asked_lines
    from visit.runs.job import steps
    from visit.runs.prompts import PromptSet, Row, shipped_set

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--how", choices=("zero", "mean", "from"), default="zero")
    parser.add_argument("--nodes", choices=("heads", "layers", "neurons"), default="heads")
    options = parser.parse_args()
    model = visit.load_model(options.model)
    rows = []
    for row in shipped_set("ioi", options.model).rows:  # the last tokens of each, and of its partner
        ids, other = (list(model.tokenizer(text)["input_ids"])[-TOKENS:] for text in (row.prompt, row.abc))
        rows.append(Row(ids, row.target, row.distractor, row.line, abc=other))  # type: ignore[arg-type]
    rows = [row for row in rows if len(row.prompt) == TOKENS]
    many = [rows[n % len(rows)] for n in range(options.prompts)]
    asked = asked_lines(model, PromptSet("twelve tokens", tuple(many)), options.how)
    expected = question_seconds(model, asked, options.nodes, options.how)
    job = HeadRun(model, asked, options.nodes, options.how)
    started, used = time.perf_counter(), time.process_time()
    for _ in steps(job):
        pass
    seconds, used = time.perf_counter() - started, time.process_time() - used
    count = len(asked.lines)
    print(f"{count} prompts of {TOKENS} tokens, {options.nodes} of {model.name}, {options.how}: {seconds:.1f} s")
    print(f"for 100: {100 * seconds / count:.1f} s (wanted {WANTED:.0f}); forecast {expected:.1f} s")
    print(f"for 100, of one processor: {100 * used / count:.1f} s (what a busy machine leaves out)")
    if options.nodes == "heads" and options.how == "zero":
        started = time.perf_counter()
        for line in asked.lines[:SINGLE]:
            acts = visit.capture(model, line.ids)
            visit.effects(model, acts, "heads", line.pos, line.target, line.distractor)
        single = (time.perf_counter() - started) / min(SINGLE, count)
        print(f"a prompt: {seconds / count:.2f} s, as a single map {single:.2f} s: {seconds / count / single:.2f} ×")


if __name__ == "__main__":
    main()
