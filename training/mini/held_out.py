"""Prompts that training never sees: phrasings of facts, ordered pairs of names, repeated sequences."""

import random

from training.mini import words
from training.mini.text import fact_prompt, held_out_pair, held_out_phrasing, repeat_prompt, two_names
from training.mini.world import askable, facts

Case = tuple[str, str, str]  # prompt, target, and what it is about (the subject, the other name)


def fact_cases() -> list[Case]:
    """Each fact's held-out phrasing; the same direction is trained in all its other phrasings, three or more."""
    rng = random.Random(3)
    return [
        (fact_prompt(fact, phrasing, rng), f" {fact.answer}", fact.subject)
        for fact in facts()
        if askable(fact) and (phrasing := held_out_phrasing(fact)) is not None
    ]


def name_cases(count: int, rng: random.Random) -> list[Case]:
    """Sentences with two names in an order never seen; either name may be the one that gives."""
    pairs = [(a, b) for a in words.NAMES for b in words.NAMES if a != b and held_out_pair(a, b)]
    cases = []
    for first, second in rng.sample(pairs, count):
        giver_first = rng.random() < 0.5
        prompt, receiver = two_names(first, second, giver_first, rng)
        cases.append((prompt, f" {receiver}", f" {first if giver_first else second}"))
    return cases


def repeat_cases(count: int, rng: random.Random) -> list[Case]:
    """Sequences cut within their repetition, after the first repeated word or later."""
    cases = []
    for _ in range(count):
        prompt, again = repeat_prompt(rng, rng.randint(4, 16))
        cut = rng.randrange(len(again.split()))
        following = again.split()
        cases.append((" ".join([prompt, *following[:cut]]), f" {following[cut]}", ""))
    return cases
