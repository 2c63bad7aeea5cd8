"""Measures visit-mini: `python -m visit.mini.evaluate` prints each bar, what was measured, and whether it holds.

Held out are: for two facts of five, one phrasing, while the same direction (subject → answer) of the same fact is
trained in all its other phrasings (three or more), and the held-out phrasing with other subjects; one ordered pair of
names in ten; and every repeated sequence, since sequences are random. Exit status 0: everything holds.
"""

import argparse
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from visit.decompose import needed
from visit.forward import capture_many
from visit.mini import measure, prompts
from visit.mini.held_out import Case, fact_cases, name_cases
from visit.mini.text import repeat_prompt
from visit.model import Model, load_model


class Bar(NamedTuple):
    """One thing the model must do: what, how much of it is asked for, how much was measured."""

    what: str
    asked: float
    measured: float


def completed(model: Model, cases: Sequence[Case]) -> float:
    """Share of prompts whose most probable next word is the target."""
    found = capture_many(model, [case[0] for case in cases], parts=("logits",), pos=-1)
    hits = [
        int(needed(acts, "logits")[-1].argmax()) == model.token_id(case[1])
        for acts, case in zip(found, cases, strict=True)
    ]
    return sum(hits) / len(hits)


def repeated(model: Model, count: int) -> float:
    """Share of words predicted right in repetitions, from the second repeated word on."""
    rng = random.Random(22)
    pairs = [repeat_prompt(rng, rng.randint(4, 16)) for _ in range(count)]
    right = total = 0
    for acts, (_, again) in zip(
        capture_many(model, [f"{prompt} {again}" for prompt, again in pairs], parts=("logits",)), pairs, strict=True
    ):
        n = len(model.tokenizer(f" {again}")["input_ids"])
        guesses = needed(acts, "logits")[-n - 1 : -1].argmax(-1)
        right += int((guesses == torch.tensor(acts.token_ids[-n:])).sum())
        total += n
    return right / total


def known(model: Model) -> list[Bar]:
    """Top-1 accuracy on what training never showed."""
    must = [*prompts.KNOWN, prompts.TWO_NAMES]
    return [
        Bar("the five prompts it must complete", 1.0, completed(model, must)),
        Bar("facts in held-out phrasings", 0.98, completed(model, fact_cases())),
        Bar("two names, ordered pairs never seen", 0.98, completed(model, name_cases(220, random.Random(21)))),
        Bar("repeated sequences", 0.95, repeated(model, 200)),
    ]


def shown(model: Model) -> list[Bar]:
    """What its forward pass must show, on the shipped prompt sets."""
    facts, names = prompts.fact_prompts(), prompts.name_prompts()
    runs = [measure.states(model, prompt, target) for prompt, target, _ in facts]
    late = sum(ranks[0] > 1 and measure.rises(probs) >= 3 for ranks, probs in runs) / len(runs)
    read, control = measure.subject_reading(model, facts)
    movers = sum(measure.name_mover(model, prompt, name) is not None for prompt, name, _ in names) / len(names)
    every = [case[0] for cases in prompts.SETS.values() for case in cases()]
    often = measure.neuron_frequency(model, every).max(1).values
    return [
        Bar("(a) facts not rank 1 after block 0, rising over three states", 0.8, late),
        Bar("(b) facts of the subject in its five strongest memory values", 0.6, read),
        Bar("(b) … above the same with other subjects' facts", 0.4, read - control),
        Bar("(c) two names: a head reads the name from its position", 0.8, movers),
        Bar(
            "(d) layers with a neuron among the strongest on > 85 % of prompts",
            1.0,
            float((often > 0.85).float().mean()),
        ),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="visit-mini")
    started = time.time()
    model = load_model(parser.parse_args().model)
    bars = known(model) + shown(model)
    for bar in bars:
        verdict = "holds" if bar.measured >= bar.asked else "MISSED"
        print(f"{bar.what:68}{bar.asked:>7.0%}{bar.measured:>8.1%}  {verdict}")
    size = sum(file.stat().st_size for file in Path(prompts.FOLDER.parent, "model").glob("*.safetensors")) / 1e6
    print(f"{model.d_vocab} tokens, {size:.1f} MB, {time.time() - started:.0f} s")
    return int(any(bar.measured < bar.asked for bar in bars))


if __name__ == "__main__":
    sys.exit(main())
