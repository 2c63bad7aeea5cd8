"""Names that members give themselves: bounded, printable, and no two alike in a room. They are text, never markup."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection

from visit.errors import VisitError

NICKNAME_LENGTH = 24
_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # controls, direction marks, halves of characters
_MARKS = ("Mn", "Me")


def nickname(given: str, taken: Collection[str], number: int) -> str:
    """`given` as it may stand on the teacher's screen, with a number behind it where another has it already.

    White space is one space, what cannot be seen is left out, and of accents that pile up on a letter two stay. Nothing
    at all is `Guest <number>`. More than NICKNAME_LENGTH characters are refused: a name that was cut is not her own.
    """
    if len(given) > 40 * NICKNAME_LENGTH:  # before anything is done with it
        raise _too_long(len(given))
    name = _printable(unicodedata.normalize("NFC", given))
    if len(name) > NICKNAME_LENGTH:
        raise _too_long(len(name))
    name = name or f"Guest {number}"
    known = {_alike(other) for other in taken}
    found, count = name, 1
    while _alike(found) in known:
        count += 1
        suffix = f" {count}"
        found = name[: NICKNAME_LENGTH - len(suffix)].rstrip() + suffix
    return found


def _too_long(length: int) -> VisitError:
    return VisitError(
        f"A nickname has at most {NICKNAME_LENGTH} characters; got {length:,}. Choose a shorter one, or none."
    )


def _printable(text: str) -> str:
    kept: list[str] = []
    marks = 0
    for c in " ".join(text.split()):
        category = unicodedata.category(c)
        marks = marks + 1 if category in _MARKS else 0
        if category in _UNSEEN or marks > 2 or (marks and not kept):
            continue
        kept.append(" " if category == "Zs" else c)
    return " ".join("".join(kept).split())


def _alike(name: str) -> str:
    """Equal for names that a reader would take for the same."""
    return unicodedata.normalize("NFKC", name).casefold()
