"""The prompt sets shipped with the model: `python -m training.mini.prompts` writes them into `visit/data`."""

import csv
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from training.mini import words
from training.mini.held_out import Case, fact_cases, name_cases, repeat_cases
from training.mini.text import polish
from visit.models.catalog import MINI_FOLDER

FOLDER = MINI_FOLDER / "prompts"
KNOWN = [
    ("The capital of Japan is the city of", " Tokyo", "Japan"),
    ("Buenos Aires is the capital of", " Argentina", "Buenos Aires"),
    ("The mother tongue of Michel Denisot is", " French", "Michel Denisot"),
    ("Lionel Messi plays the sport of", " football", "Lionel Messi"),
]
TWO_NAMES = ("When Mary and John went to the store, John gave a drink to", " Mary", " John")
# plain sentences up to a word that grammar alone determines
FRAMES = """the {person} did not {base} the {thing} because| it
the {thing} is not {adj} and it is not {adj2}| either
I have never seen a {thing} as {adj}| as
I have never seen a {thing} as {adj} as this| one
neither the {person}| nor
we {sees} the {thing} which| was
if the {person} is {adj} then| the
the {person} and the {person2} {sees} each| other
to {base} a {thing} is| not
all of the {thing} is {adj}, and none| of
what the {person} {sees} was not a {thing}| but
it was {adj} in winter, so| the
she said| that
you can {base} the {thing}, but you must| not""".splitlines()


def fact_prompts() -> list[Case]:
    """Prompt, target, subject: the four that it must know, then held-out phrasings."""
    return KNOWN + [case for case in random.Random(11).sample(fact_cases(), 240) if case not in KNOWN]


def name_prompts() -> list[Case]:
    """Prompt, target, distractor: the classic one, then pairs of names in an order never seen."""
    return [TWO_NAMES, *name_cases(140, random.Random(12))]


def repeat_prompts() -> list[Case]:
    return repeat_cases(80, random.Random(13))


def plain_prompts() -> list[Case]:
    rng = random.Random(14)
    cases = []
    for frame in FRAMES * 5:
        person, person2 = rng.sample(words.PEOPLE, 2)
        adj, adj2 = rng.sample(words.ADJECTIVES, 2)
        fill = {"thing": rng.choice(words.THINGS), "base": rng.choice(words.BASES), "sees": rng.choice(words.SEES)}
        text, target = frame.format(person=person, person2=person2, adj=adj, adj2=adj2, **fill).split("|")
        cases.append((polish(text), target, ""))
    return cases


def ioi_prompts() -> list[tuple[str, ...]]:
    """Prompt, target, distractor, partner: held-out pairs, each beside the same sentence with three other names."""
    rng = random.Random(16)
    cases = []
    for prompt, target, repeated in name_cases(48, rng):
        others = iter(rng.sample([n for n in words.NAMES if f" {n}" not in (target, repeated)], 3))
        names = f"{target.strip()}|{repeated.strip()}"
        cases.append((prompt, target, repeated, re.sub(rf"\b({names})\b", lambda _, left=others: next(left), prompt)))
    return cases


SETS: dict[str, Callable[[], Sequence[tuple[str, ...]]]] = {
    "facts": fact_prompts, "names": name_prompts, "ioi": ioi_prompts, "repeats": repeat_prompts, "plain": plain_prompts,
}  # fmt: skip
COLUMNS = {"names": 3, "ioi": 4}  # of the others two: only names have a distractor, and one set has partners


def write(folder: Path = FOLDER) -> None:
    """One CSV a set."""
    for name, cases in SETS.items():
        columns = COLUMNS.get(name, 2)
        with open(folder / f"{name}.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["prompt", "target", "distractor", "abc"][:columns])
            writer.writerows(case[:columns] for case in cases())


if __name__ == "__main__":
    write()
