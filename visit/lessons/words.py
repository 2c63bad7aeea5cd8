"""Placeholders in a lesson's texts: `{head}`, `{head.contribution}`: which there are, and how they are filled.

A name of `let` stands for its answer on the learner's own run, with a point and a word for what is known of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

# what may stand in every text
STANDARD = {"target": "token", "distractor": "token", "prediction": "token", "prompt": "text", "model": "text",
            "probability": "number"}  # fmt: skip
# kind of a name -> what can be said of it
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "node": ("contribution", "source", "pattern", "words", "norm", "without", "effect", "block"),
    "position": ("word",),
    "token": ("probability", "rank"),
    "number": (),
    "text": (),
}
_PLACEHOLDER = re.compile(r"\{([^{}\n]{0,60})\}")


def placeholders(text: str, names: Mapping[str, str]) -> list[str]:
    """What is wrong with the placeholders of a text, one sentence each. `names`: name -> its kind."""
    problems = []
    for place in _PLACEHOLDER.findall(text):
        name, _, about = place.partition(".")
        if name not in names:
            problems.append(f"{{{place}}} stands for nothing; what can stand here is {_listed(names)}.")
        elif about and about not in ATTRIBUTES.get(names[name], ()):
            allowed = ", ".join(f"{{{name}.{one}}}" for one in ATTRIBUTES.get(names[name], ())) or f"{{{name}}} alone"
            problems.append(f"{{{place}}}: {name} is a {names[name]}, of which can be said {allowed}.")
    return problems


def fill(text: str, told: Callable[[str, str], str]) -> str:
    """The text with `told(name, attribute)` in place of every placeholder; what it gives is not looked at again."""
    return _PLACEHOLDER.sub(lambda found: told(*_split(found[1])), text)


def _split(place: str) -> tuple[str, str]:
    name, _, about = place.partition(".")
    return name, about


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)
