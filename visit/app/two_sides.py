"""Both sides of a comparison: two passes, how their tokens are aligned, and whether anything can be subtracted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from visit.app.cache import PassKey, Seen
from visit.app.lens_choice import seen
from visit.app.recorded import is_recorded, run_named
from visit.app.subject import Subject
from visit.app.widgets import shown_window

PAIRS = 14  # of the map on screen at once


@dataclass(frozen=True, eq=False)
class Two:
    """Two passes, how their tokens are aligned, and the corrections of that (`"3:5,4:"`)."""

    a: Subject
    b: Subject
    pairing: Any
    align: str

    @property
    def keys(self) -> tuple[PassKey, PassKey, str]:
        return self.a.key, self.b.key, self.align

    @property
    def models(self) -> tuple[str, ...]:
        """The models of the two sides, one where it is the same."""
        return tuple(dict.fromkeys((self.a.model.name, self.b.model.name)))

    @property
    def recorded(self) -> Any:
        """The recording that both are from; None for two live passes."""
        return run_named(self.a.key[0])[0] if is_recorded(self.a.key[0]) else None

    @property
    def same(self) -> bool:
        """Whether both sides are one text at one position of one model: nothing can differ."""
        return self.a.model is self.b.model and self.a.key == self.b.key and self.a.pos == self.b.pos

    @property
    def seen(self) -> tuple[Seen, ...]:
        """How either side's states are read."""
        return seen(self.a.model.name, self.b.model.name)

    def window(self) -> range:
        """The pairs that the map shows: all, or those around the positions looked at."""
        return shown_window(*self.pager)

    @property
    def pager(self) -> tuple[str, Any, int, int, int]:
        """Arguments of a pager of the pairs."""
        count = len(self.pairing.pairs)
        here = next((n for n, p in enumerate(self.pairing.pairs) if p.a == self.a.pos), count - 1)
        return "apart", self.keys, count, here, PAIRS


def why_apart(two: Two) -> str | None:
    """Why the two models have no difference graph; None if they have one."""
    from visit.analyses.graph_difference import shape, unlike

    return unlike(shape(two.a.model), shape(two.b.model), two.a.model.name, two.b.model.name)
