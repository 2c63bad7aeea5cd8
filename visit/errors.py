"""The one exception that is meant for users, and the sentences it says most. It imports nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class VisitError(Exception):
    """Something the user asked for cannot be done; the message says what must hold, what came, and what to do."""


class NotRecorded(VisitError):
    """What is asked for is not in this recording."""


def check_range(what: str, number: int | None, total: int) -> None:
    """Refuse an index that is not from 0 to `total` − 1. `what`: its plural, as "Heads of visit-mini"."""
    if number is None or not 0 <= number < total:
        raise VisitError(f"{what} run from 0 to {total - 1}; got {number}.")


def check_choice(name: str, given: Any, allowed: Iterable[str]) -> None:
    """Refuse what is none of a few names."""
    if given not in (names := tuple(allowed)):
        raise VisitError(f"{name} must be one of {', '.join(names)}; got {given!r}.")


def check_positive(name: str, number: int | None) -> None:
    """Refuse a count below 1, or that is no whole number; None, which stands for all, is passed."""
    if number is None:
        return
    if isinstance(number, bool) or not hasattr(number, "__index__"):
        raise VisitError(f"{name} must be a whole number from 1; got {number!r}.")
    if number < 1:
        raise VisitError(f"{name} must be at least 1; got {number}.")


def check_kind(name: str, given: Any, kind: type | tuple[type, ...], what: str) -> None:
    """Refuse what is of another type. `what`: how such a thing is had, as "a record of visit.capture"."""
    if not isinstance(given, kind):
        raise VisitError(f"{name} must be {what}; got {type(given).__name__} {str(given)[:40]!r}.")


@contextmanager
def told_panics(what: str) -> Iterator[None]:
    """Make a panic inside a library written in Rust a `VisitError` that says `what` failed.

    It arrives as a `BaseException`, past every `except Exception`: a thread ends by it, and who waits waits for ever.
    """
    try:
        yield
    except BaseException as error:
        if not is_panic(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise VisitError(f"{what} failed inside its library ({reason}).") from error


def is_panic(error: BaseException) -> bool:
    """Whether an exception is a panic of a library written in Rust, whose class nobody can import."""
    return type(error).__name__ == "PanicException"
