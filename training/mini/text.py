"""Writes the corpus: sentences of facts, of two names, of repeated sequences and of plain English.

A sentence is text in which `|` encloses what is asked (the answer, the name, the repeated part), so that training can
weigh it and prompt sets can be cut there. Everything follows from one seed.
"""

import random
import re
from binascii import crc32
from functools import cache
from typing import Any

from training.mini import words
from training.mini.world import ASIDES, Fact, facts, phrasings

SHARES = {"fact": 0.47, "names": 0.22, "repeat": 0.18, "plain": 0.13}
LEADS = """I read that
we know that
it is true that
everybody knows that
my teacher says that
you should remember that
people often say that
in this book it says that""".splitlines()
TAILS = [", I think.", ", of course.", " and I am sure of it.", ", as I said.", ", and that is true."]


def held_out_phrasing(fact: Fact) -> int | None:
    """The one phrasing kept from training for two facts of five; all its others (at least three) are trained."""
    mark = crc32(f"{fact.relation}/{fact.subject}".encode())
    return mark // 5 % len(phrasings(fact.relation)) if mark % 5 < 2 else None


def held_out_pair(first: str, second: str) -> bool:
    """One ordered pair of names in ten never occurs in training, in the order of their first mention."""
    return crc32(f"{first}/{second}".encode()) % 10 == 0


def polish(text: str) -> str:
    """Capital at the start, `an` before vowels."""
    text = re.sub(r"\b([Aa]) (?=[aeiouAEIOU])", r"\1n ", text)
    return text[0].upper() + text[1:]


def fact_prompt(fact: Fact, phrasing: int, rng: random.Random, lead: str = "") -> str:
    """The sentence up to the answer."""
    text = phrasings(fact.relation)[phrasing].format(s=fact.subject, aside=rng.choice(ASIDES))
    if lead:
        return polish(f"{lead} {text}")
    return text if text.startswith(fact.subject) else polish(text)


@cache
def some(items: tuple[Any, ...], share: float) -> tuple[Any, ...]:
    """The same part of the items each time: a training that begins with a small world finds its circuits sooner."""
    return tuple(item for item in items if crc32(repr(item).encode()) % 1000 < 1000 * share)


@cache
def some_facts(share: float) -> tuple[Fact, ...]:
    """All facts of some subjects."""
    subjects = set(some(tuple(sorted({fact.subject for fact in facts()})), share))
    return tuple(fact for fact in facts() if fact.subject in subjects)


def fact_sentence(rng: random.Random, share: float = 1.0) -> str:
    fact = rng.choice(some_facts(share))
    options = [i for i in range(len(phrasings(fact.relation))) if i != held_out_phrasing(fact)]
    lead = rng.choice(LEADS) if rng.random() < 0.4 else ""
    tail = rng.choice(TAILS) if rng.random() < 0.2 else "."
    return f"{fact_prompt(fact, rng.choice(options), rng, lead)}| {fact.answer}|{tail}"


def two_names(first: str, second: str, giver_first: bool, rng: random.Random) -> tuple[str, str]:
    """A prompt with two names, one of which is repeated, and the name that must follow: the other one."""
    giver, receiver = (first, second) if giver_first else (second, first)
    opening, giving = rng.choice(words.OPENINGS), rng.choice(words.GIVINGS)
    fill = {"place": rng.choice(words.PLACES), "object": rng.choice(words.OBJECTS)}
    text = f"{opening.format(x=first, y=second, **fill)}, {giver} {giving.format(object=rng.choice(words.OBJECTS))}"
    return polish(text), receiver


def name_pair(rng: random.Random, share: float = 1.0) -> list[str]:
    """Two names in an order that training may see."""
    names = words.NAMES[: max(5, int(len(words.NAMES) * share))]
    pair = rng.sample(names, 2)
    while held_out_pair(*pair):
        pair = rng.sample(names, 2)
    return pair


def names_sentence(rng: random.Random, share: float = 1.0) -> str:
    first, second = name_pair(rng, share)
    prompt, receiver = two_names(first, second, rng.random() < 0.5, rng)
    return f"{prompt}| {receiver}|."


@cache
def lexicon() -> tuple[str, ...]:
    """Every word of the world but the first names (whose held-out pairs stay unseen), for sequences without sense."""
    texts = [str(getattr(words, name)) for name in dir(words) if name.isupper()]
    texts += [text for fact in facts() for text in (fact.subject, fact.answer)]
    texts += [text for relation in {fact.relation for fact in facts()} for text in phrasings(relation)]
    texts += LEADS + TAILS + ASIDES
    plain = re.sub(r"\{\w+\}|\\n", " ", " ".join(texts))
    return tuple(sorted(set(re.findall(r"[A-Za-z]+", plain)) - set(words.NAMES)))


def sequence(rng: random.Random, length: int, nonsense: bool = False, share: float = 1.0) -> list[str]:
    """Different words in random order, or made-up ones (spelled in bytes)."""
    if nonsense:
        return ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(3, 5))) for _ in range(length)]
    return rng.sample(some(lexicon(), share), length)


def repeat_prompt(rng: random.Random, length: int, nonsense: bool = False, share: float = 1.0) -> tuple[str, str]:
    """A sequence up to its first repeated word, and the words that must follow."""
    found = sequence(rng, length, nonsense, share)
    lead = rng.choice(["The words are", "Say after me", "The list is", rng.choice(words.NAMES)])
    return f"{lead} {' '.join(found)} {found[0]}", " ".join(found[1:])


def repeat_sentence(rng: random.Random, share: float = 1.0) -> str:
    nonsense = rng.random() < 0.06
    prompt, again = repeat_prompt(rng, rng.randint(2, 4) if nonsense else rng.randint(3, 16), nonsense, share)
    return f"{prompt}| {again}|" + (f" {prompt.rsplit(' ', 1)[1]}| {again}|" if rng.random() < 0.2 else "")


def plain_sentence(rng: random.Random, share: float = 1.0) -> str:
    person, person2 = rng.sample(words.PEOPLE, 2)
    adj, adj2 = rng.sample(words.ADJECTIVES, 2)
    base, base2 = rng.sample(words.BASES, 2)
    name, name2 = name_pair(rng, share)
    fill = {"person": person, "person2": person2, "adj": adj, "adj2": adj2, "base": base, "base2": base2,
            "name": name, "name2": name2, "sees": rng.choice(words.SEES), "sleeps": rng.choice(words.SLEEPS),
            "animal": rng.choice(words.ANIMALS), "thing": rng.choice(words.THINGS), "place": rng.choice(words.PLACES),
            "time": rng.choice(words.TIMES)}  # fmt: skip
    fill["where"] = rng.choice(words.WHERE).format(**fill)
    return polish(rng.choice(words.PLAIN).format(**fill)) + "."


WRITERS = {"fact": fact_sentence, "names": names_sentence, "repeat": repeat_sentence, "plain": plain_sentence}


def sentences(count: int, seed: int, share: float = 1.0) -> list[str]:
    """`count` marked sentences of all kinds about a share of the world, the same for the same seed."""
    rng = random.Random(seed)
    kinds = rng.choices(list(SHARES), weights=list(SHARES.values()), k=count)
    return [WRITERS[kind](rng, share) for kind in kinds]
