"""The list of changes of the What-if page: as it stands in the address, as it is shown, and as the engine takes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import streamlit as st

from visit.app.sessions import change, session, shown_position, state
from visit.app.widgets import plain
from visit.errors import VisitError
from visit.text.node_id import part_name
from visit.text.numbers import short

if TYPE_CHECKING:
    from visit.activations.record import Activations, Applied, Edit
    from visit.models.model import Model

HOWS = {
    "zero": "take it out (zero)", "mean": "its mean over this prompt", "scale": "times a factor",
    "from": "from the other prompt", "add": "add what the other prompt has more",
}  # fmt: skip
_MORE = "what the other prompt's last position has more than this one's"
MAX_LISTED = 40  # changes that an address holds


@dataclass(frozen=True)
class Listed:
    """One change of the list. `factor`: of "scale" and "add"; `at`: "all" or a position; `on`: it is switched on."""

    node: str
    how: str = "zero"
    factor: float = 1.0
    at: str = "-1"
    on: bool = True

    @property
    def text(self) -> str:
        """As it stands in the address: `!L3.head5~scale0.5@-1`."""
        factor = f"{self.factor:g}" if self.how in ("scale", "add") else ""
        return f"{'' if self.on else '!'}{self.node}~{self.how}{factor}@{self.at}"


def as_edit(one: Listed, other: Callable[[], Activations], acts: Activations) -> Edit:
    """The change as the engine takes it. `other`: makes the other prompt's pass, where the change needs it."""
    from visit.activations.record import Edit

    source = other() if one.how == "from" else (other(), acts) if one.how == "add" else None
    factor = one.factor if one.how in ("scale", "add") else None
    return Edit(one.node, one.how, source, "all" if one.at == "all" else int(one.at), factor)  # type: ignore[arg-type]


def possible(
    model: Model, acts: Activations, text: str, other: Callable[[], Activations]
) -> tuple[list[Applied], dict[int, str]]:  # fmt: skip
    """(the changes that are switched on and can be made, number in the list → why that one cannot).

    One that contradicts an earlier one cannot; what is left out is never left out silently: see `whatif`.
    """
    from visit.activations.forward import applied

    made: list[Applied] = []
    refused: dict[int, str] = {}
    for n, one in enumerate(parse_list(text)):
        if one.on:
            try:
                made = list(applied(model, [*made, as_edit(one, other, acts)], acts.token_ids))
            except VisitError as problem:
                refused[n] = str(problem)
    return made, refused


def forced(text: str) -> dict[int, str]:
    """`12= word` as {12: " word"}: which word stands at a new position. Raises `VisitError` for anything else."""
    if not text:
        return {}
    place, sign, word = text.partition("=")
    if not (sign and word and place.strip().isdecimal()):
        raise VisitError(f"A word is forced as position = word, such as 12= Paris; got “{text[:40]}”.")
    return {int(place): word}


def parse_list(text: str) -> list[Listed]:
    """The changes of an address, whose form `visit.app.state` has checked."""
    found = []
    for item in filter(None, text.split(";")):
        node, _, rest = item.removeprefix("!").partition("~")
        way, _, at = rest.rpartition("@")
        how = next(h for h in HOWS if way.startswith(h))
        found.append(Listed(node, how, float(way.removeprefix(how) or 1), at, not item.startswith("!")))
    return found


def store(listed: Sequence[Listed]) -> None:
    """Make this the list; the address follows."""
    change(edits=";".join(one.text for one in listed[:MAX_LISTED]))
    if len(listed) > MAX_LISTED:
        session().notes = [f"The list holds {MAX_LISTED} changes; what came later is left out. Remove some first."]


def current() -> list[Listed]:
    return parse_list(state().whatif.edits)


def take_out(node: str, at: str | None = None, how: str = "zero") -> None:
    """The part is taken out (or replaced) at the position looked at, or where `at` says: one more change, or another
    of the same numbers, which could not be replaced twice."""
    one = Listed(node, how, at=at or str(shown_position()))
    listed = [one if (it.node, it.at) == (one.node, one.at) else it for it in current()]
    store(listed if one in listed else [*listed, one])


def check(model: Model, one: Listed) -> None:
    """Raise `VisitError` unless the model has this part."""
    from visit.activations.sites import site_of

    site_of(model, one.node)


def rows(word_at: Callable[[int], str], refused: Mapping[int, str]) -> None:
    """The list on screen: every change with its switch, its factor, its place in the order, and what removes it.

    `refused`: number in the list → why this change cannot be made.
    """
    listed = current()
    for n, one in enumerate(listed):
        with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"edit_row_{n}"):
            st.toggle(f"change {n + 1}", one.on, key=f"edit_on {n} {one.text}", label_visibility="collapsed",
                      on_change=_set, args=(n, replace(one, on=not one.on)))  # fmt: skip
            way, place = plain(_way_in_words(one)), plain(_place_in_words(one, word_at))
            said = f"**{plain(part_name(one.node))}**: {way}, at {place}"
            st.markdown(f"~~{said}~~" if n in refused else said, width="stretch")
            if one.how in ("scale", "add"):
                key = f"edit_factor {n} {one.text}"
                st.slider("factor", -1.0, 2.0, float(min(2, max(-1, one.factor))), 0.05, key=key, width=220,
                          label_visibility="collapsed", on_change=_factor, args=(n, one, key))  # fmt: skip
            if len(listed) > 1:
                st.button("Earlier", icon=":material/arrow_upward:", key=f"edit_up {n}", disabled=n == 0,
                          type="tertiary", on_click=_swap, args=(n, n - 1))  # fmt: skip
            st.button("Remove", icon=":material/close:", key=f"edit_off {n}", type="tertiary",
                      on_click=_set, args=(n, None))  # fmt: skip
        if n in refused:
            st.caption(f":material/block: Left out: {plain(refused[n])}")


def _way_in_words(one: Listed) -> str:
    times = {"scale": f"times {short(one.factor)}", "add": f"{short(one.factor)} × {_MORE} added"}
    return times.get(one.how, HOWS[one.how])


def _place_in_words(one: Listed, word_at: Callable[[int], str]) -> str:
    return "every position" if one.at == "all" else f"position {word_at(int(one.at))}"


def changes_in_words(made: Sequence[Listed], some: bool) -> str:
    """What is changed, for a sentence: "Without L4 H1", "With these 2 changes". `some`: others are left out."""
    if len(made) == 1 and made[0].how == "zero":
        return f"Without {part_name(made[0].node)}"
    return f"With {'the other' if some else 'these'} {len(made)} changes" if len(made) > 1 else "With this change"


def _set(n: int, one: Listed | None) -> None:
    listed = current()
    if n < len(listed):
        store([*listed[:n], *([] if one is None else [one]), *listed[n + 1 :]])


def _factor(n: int, one: Listed, key: str) -> None:
    _set(n, replace(one, factor=float(st.session_state[key])))


def _swap(n: int, m: int) -> None:
    listed = current()
    if max(n, m) < len(listed):
        listed[n], listed[m] = listed[m], listed[n]
        store(listed)
