"""The head that the memory page is about: the one of the address, else the strongest."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from visit.app.cached_heads import st_heads
from visit.app.sessions import change, session, state
from visit.app.subject import Subject


@dataclass(frozen=True, eq=False)
class Chosen:
    """The head looked at."""

    subject: Subject
    layer: int
    head: int

    @property
    def node(self) -> str:
        return f"L{self.layer}.head{self.head}"

    @property
    def name(self) -> str:
        return f"L{self.layer} H{self.head}"


def chosen_head(subject: Subject) -> Chosen:
    """The head that the address names, else the one that pushes hardest towards the target."""
    from visit.narrate.memory import strongest_head

    model = subject.model
    for text in (state().memory.head, state().graph.node):
        numbers = _layer_and_head(text)
        if numbers and numbers[0] < model.n_layers and numbers[1] < model.n_heads:
            return _looked_at(subject, *numbers)
    if state().memory.head:
        last = f"L{model.n_layers - 1}.head{model.n_heads - 1}"
        st.info(f"The link's head “{state().memory.head}” does not exist here (heads go up to {last}); "
                "the strongest is shown.", icon=":material/link:")  # fmt: skip
    numbers = _layer_and_head(strongest_head(st_heads(*subject.about)))
    assert numbers
    return _looked_at(subject, *numbers)


def _looked_at(subject: Subject, layer: int, head: int) -> Chosen:
    session().looked |= {"layer": layer, "head": head}
    return Chosen(subject, layer, head)


def _layer_and_head(node: str) -> tuple[int, int] | None:
    """(layer, head) of an id such as L4.head1.value3."""
    parts = node.split(".")
    if len(parts) < 2 or not parts[1].startswith("head") or not parts[1][4:].isdigit():
        return None
    return int(parts[0][1:]), int(parts[1][4:])


def take_head(node: str) -> None:
    """Look at another head."""
    change(head=node, node="", source=None)
