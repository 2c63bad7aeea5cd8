"""Function words and content words: which token is which.

The list of function words is a file of the package (`function_words.txt`), to be shown and edited. Punctuation is in
it: what a norm takes away is both, and without the marks the largest falls of a real model would not be counted.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from visit.models.model import Model

FILE = Path(__file__).parents[1] / "data" / "function_words.txt"


def function_words(text: str | None = None) -> frozenset[str]:
    """The words of a list in lower case (None: the shipped one): separated by spaces, `#` begins a remark's line."""
    lines = (FILE.read_text(encoding="utf-8") if text is None else text).splitlines()
    return frozenset(w for line in lines if not line.lstrip().startswith("#") for w in line.lower().split())


def is_function_word(token: str, listed: Collection[str]) -> bool:
    """Whether a token is in a list of function words: spaces around it and capitals aside, or as marks one by one."""
    bare = token.strip().lower()
    return bare in listed or (len(bare) > 1 and all(c in listed and not c.isalnum() for c in bare))


def word_classes(model: Model, words: Collection[str] | None = None) -> list[str]:
    """ "function", "content" or "other" for every token id.

    Function: the token is in the list (`is_function_word`), which holds punctuation, too. Content: it begins a word
    (has a leading space, where the vocabulary has such tokens at all) and is letters alone. Other: pieces of words,
    numbers, other signs, bytes. Source: ours; the paper names examples only.
    """
    listed = function_words() if words is None else frozenset(w.strip().lower() for w in words)
    spaced = any(t[:1] == " " and t[1:].isalpha() for t in model.vocabulary)
    found = []
    for token in model.vocabulary:
        bare = token.removeprefix(" ")
        begins = bare.isalpha() and (token != bare or not spaced)
        found.append("function" if is_function_word(token, listed) else "content" if begins else "other")
    return found
