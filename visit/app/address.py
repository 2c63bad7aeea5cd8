"""The address of a page: the state and a visitor's seat in a class, read from its parameters and written into them.

A field stands in the address under its name while it has not its default. A value that cannot be used is replaced by
its default, and a note says so. Nothing here knows Streamlit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from visit.app.link_values import PROMPT_CHARACTERS
from visit.app.state import CONTROLS, State, value_of, with_values
from visit.errors import VisitError
from visit.text.packed import packed, unpacked

ADDRESS_CHARACTERS = 1_900  # of a query that is written as it is; a longer one is packed (visit.text.packed)
PACKED = "z"  # the parameter that holds a packed query
NOTES_TOLD = 5  # of a link, that are told one by one


def parse(params: Mapping[str, str]) -> tuple[State, list[str]]:
    """(state, notes): one note for every value that could not be used; of many the first, and how many more."""
    params, notes = query(params)
    found: dict[str, Any] = {}
    for name, known in CONTROLS.items():
        if name not in params:
            continue
        try:
            value = known.read(str(params[name]))
            found[name] = known.default if value is None else value
        except (ValueError, VisitError) as problem:
            default = written(known.default)
            shown = f"“{default}”" if default not in ("", "-1") else "the default"
            notes.append(f"The link's “{name}” cannot be used ({problem}); {shown} is shown instead.")
    if len(notes) > NOTES_TOLD:
        notes[NOTES_TOLD:] = [
            f"{len(notes) - NOTES_TOLD} more values of the link cannot be used; defaults are shown instead."
        ]
    return with_values(State(), found), notes


def query(params: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """(an address's parameters as they are written where there is room for them, notes)."""
    plain = {name: str(value) for name, value in params.items()}
    if PACKED not in plain:
        return plain, []
    try:
        return unpacked(plain.pop(PACKED)) | plain, []
    except ValueError as problem:
        return plain, [f"The link's “{PACKED}”, which holds a long view, cannot be used ({problem})."]


def to_params(state: State) -> dict[str, str]:
    """The shortest query that gives the state back."""
    values = {name: value_of(state, name) for name in CONTROLS}
    found = {name: written(value) for name, value in values.items() if value != CONTROLS[name].default}
    return {n: v for n, v in found.items() if not n.startswith("prompt") or len(v) <= PROMPT_CHARACTERS}


def address_params(state: State) -> dict[str, str]:
    """The query as it stands in the address: as it is while a person can read it, a long one packed."""
    plain = to_params(state)
    return plain if len(urlencode(plain)) <= ADDRESS_CHARACTERS else {PACKED: packed(plain)}


def written(value: Any) -> str:
    """A value as it stands in the address."""
    return "1" if value is True else "" if value is None or value is False else str(value)


# ---- a seat in a class -----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Seat:
    """A visitor's place in a class: the room's code, the token of a member, the key of the teacher.

    It stands in the address, so that a reload keeps it, and beside the state, so that no link that is shared or
    followed carries it.
    """

    room: str = ""
    me: str = ""
    key: str = ""


_SEATS = {"room": r"[A-Za-z]{1,8}", "me": r"[\w-]{16}", "key": r"[\w-]{24}"}


def seat_of(params: Mapping[str, str], before: Seat) -> tuple[Seat, list[str]]:
    """(the seat that an address gives, notes). An address without a room leaves a visitor where she sits."""
    given = {name: str(params[name]).strip() for name in _SEATS if name in params}
    found = {name: text for name, text in given.items() if re.fullmatch(_SEATS[name], text, re.ASCII)}
    notes = [f"The link's “{name}” is none, and is not used." for name in given if name not in found]
    if "room" not in found:
        return before, notes
    found["room"] = found["room"].upper()
    return (replace(before, **found) if found["room"] == before.room else Seat(**found)), notes
