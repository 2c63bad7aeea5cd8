"""Measures visit-mini: `python -m training.mini.evaluate` prints each bar, what was measured, and whether it holds.

Held out are: for two facts of five, one phrasing, while the same direction (subject → answer) of the same fact is
trained in all its other phrasings (three or more), and the held-out phrasing with other subjects; one ordered pair of
names in ten; and every repeated sequence, since sequences are random. Exit status 0: everything holds.
"""

import argparse
import random
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import torch

from training.mini import measure, prompts
from training.mini.held_out import Case, fact_cases, name_cases
from training.mini.text import repeat_prompt
from visit.activations.forward import capture_many
from visit.exact.decompose import needed
from visit.models.catalog import MINI_FOLDER
from visit.models.load import load_model
from visit.models.model import Model


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


def known(model: Model) -> Iterator[Bar]:
    """Top-1 accuracy on what training never showed."""
    yield Bar("the five prompts it must complete", 1.0, completed(model, [*prompts.KNOWN, prompts.TWO_NAMES]))
    yield Bar("facts in held-out phrasings", 0.98, completed(model, fact_cases()))
    yield Bar("two names, ordered pairs never seen", 0.98, completed(model, name_cases(220, random.Random(21))))
    yield Bar("repeated sequences", 0.95, repeated(model, 200))


def shown(model: Model) -> Iterator[Bar]:
    """What its forward pass must show, on the shipped prompt sets."""
    facts, names = prompts.fact_prompts(), prompts.name_prompts()
    runs = [measure.states(model, prompt, target) for prompt, target, _ in facts]
    late = [ranks[0] > 1 and measure.rises(probs) >= 3 for ranks, probs in runs]
    yield Bar("(a) facts not rank 1 after block 0, rising over three states", 0.8, mean(late))
    read, control = measure.subject_reading(model, facts)
    yield Bar("(b) a fact of the subject in its five strongest memory values", 0.6, read)
    yield Bar("(b) ... above the same with other subjects' facts", 0.4, read - control)
    movers = [measure.name_mover(model, prompt, name) is not None for prompt, name, _ in names]
    yield Bar("(c) two names: a head reads the name from its position", 0.8, mean(movers))
    every = [case[0] for cases in prompts.SETS.values() for case in cases()]
    often = measure.neuron_frequency(model, every).max(1).values > measure.OFTEN
    yield Bar("(d) layers with a neuron among the strongest on > 85 % of prompts", 1.0, mean(often.tolist()))


def main() -> int:
    """Prints the table; 0 if every bar holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="visit-mini")
    name = parser.parse_args().model
    started = time.time()
    model = load_model(name)
    missed = 0
    for bar in chain(known(model), shown(model)):
        holds = bar.measured >= bar.asked
        missed += not holds
        print(f"{bar.what:68}{bar.asked:>7.0%}{bar.measured:>8.1%}  {'holds' if holds else 'MISSED'}", flush=True)
    folder = MINI_FOLDER if name == "visit-mini" else Path(name)
    size = (folder / "model.safetensors").stat().st_size / 1e6
    print(f"{model.d_vocab} tokens, {size:.1f} MB, {time.time() - started:.0f} s")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
