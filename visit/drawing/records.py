"""What a drawing is made of: levels of detail, the measures of its paper in pixels, pills in their places, bands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

from visit.graph.flowgraph import Edge, Node
from visit.text.visible import QUIET_KINDS, as_word, fit, text_width, word_kind

Level = Literal["states", "words", "everything"]
Parts = Literal["both", "attention", "mlp"]
Detail = Level | Mapping[int, Level]

LEVELS: tuple[Level, ...] = ("states", "words", "everything")
WidthBy = Literal["norm", "contribution", "influence"]
Role = str  # "state", "pill", "rest", "tag", "bead", "card": how a pill is drawn

# ---- the paper -------------------------------------------------------------------------------------------------------
STREAM_Y = 66.0  # centre of the stream
NAME_Y = 108.0  # baseline of the workshops' column names
FOLD_W = 72.0  # of a folded block's pills
BAR_Y, BAR_H = 51.0, 14.0  # over folded states: foot and height of bars
FAN = 62.0  # room in which the bands of a column bend into their sum
LOGITS_LINE = 19.0
WORD_SIZE, TAG_SIZE = 12.0, 11.0


@dataclass(slots=True)
class Pill:
    """A node in its place: top left corner and size in pixels, the texts already cut to their room."""

    id: str
    node: Node
    role: Role
    x: float
    y: float
    w: float
    h: float
    word: str = ""
    tag: str = ""
    pad: float = 7.0  # from the box to its texts
    quiet: bool = False  # the word is white space or bytes
    whole_tag: str = ""  # before it was cut

    @property
    def right(self) -> float:
        return self.x + self.w

    @property
    def bottom(self) -> float:
        return self.y + self.h

    @property
    def cy(self) -> float:
        return self.y + self.h / 2


@dataclass(slots=True)
class Caption:
    """A column's name, a block's title or a small number: baseline start in pixels. Kinds: title, column, note."""

    x: float
    y: float
    text: str
    kind: str
    layer: int | None = None
    middle: bool = False


@dataclass(slots=True)
class Junction:
    """A point where a line from the stream splits into the bands of one head; not a node."""

    id: str
    x: float
    y: float
    rail: float


@dataclass(slots=True)
class Block:
    """What the bands need to know of one block's place: where lines leave the stream and where the frame ends."""

    layer: int
    level: Level
    x: float
    right: float = 0.0
    rails: dict[str, tuple[float, float]] = field(
        default_factory=dict
    )  # workshop -> (leaves the stream at x, runs at x)


@dataclass(slots=True)
class Bar:
    """The target's probability over a folded state, as a bar that stands on `BAR_Y` and is at most `BAR_H` high."""

    layer: int
    x: float
    w: float
    share: float


@dataclass(slots=True)
class Sheet:
    """A finished layout."""

    pills: dict[str, Pill] = field(default_factory=dict)
    captions: list[Caption] = field(default_factory=list)
    junctions: dict[str, Junction] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    fold_w: float = FOLD_W  # width of a folded block's pills
    width: float = 0.0
    height: float = 0.0

    def pill(
        self, node: Node, role: Role, x: float, y: float, w: float, h: float, tag: str = "", pad: float | None = None
    ) -> Pill:
        """Put a node in its place; the tag gives way when the word needs the room."""
        pad = pad or (8.0 if role == "state" else 7.0)
        tag_asked = tag
        word, tag = _fitted_texts(node, role, w - 2 * pad, tag)
        placed = self.pills[node.id] = Pill(
            node.id, node, role, x, y, w, h, word, tag, pad, word_kind(node.word) in QUIET_KINDS, tag_asked
        )
        return placed

    def narrowed(self, times: float) -> Sheet:
        """The same in that many times less width: its words are as large, and cut to the room that is left.

        As wide in print as before, its words are that many times larger. What lies between pills gives way first.
        """
        at = _shorter([(pill.x, pill.right) for pill in self.pills.values()], self.width, times)
        short = Sheet(fold_w=at(self.fold_w), width=at(self.width), height=self.height)
        for pill in self.pills.values():
            x, pad = at(pill.x), pill.pad / min(times, 2.0)
            placed = short.pill(pill.node, pill.role, x, pill.y, at(pill.right) - x, pill.h, pill.whole_tag, pad)
            if pill.tag and placed.word.endswith("…") and pill.role in ("pill", "state") and pill.node.kind != "head":
                placed.word, placed.tag = fit(pill.word, placed.w - 2 * pad, WORD_SIZE), ""  # a word says more
        columns = sorted({caption.x for caption in self.captions if caption.kind == "column"})
        after = dict(pairwise([*columns, self.width]))
        for one in self.captions:
            room = at(after[one.x]) - at(one.x) - 4 if one.kind == "column" else float("inf")
            room = short.fold_w - 4 if one.kind == "column" and one.y > NAME_Y else room  # beside a folded block
            short.captions.append(replace(one, x=at(one.x), text=fit(one.text, room, TAG_SIZE)))
        short.junctions = {n: replace(one, x=at(one.x), rail=at(one.rail)) for n, one in self.junctions.items()}
        for block in self.blocks:
            rails = {name: (at(leave), at(rail)) for name, (leave, rail) in block.rails.items()}
            short.blocks.append(replace(block, x=at(block.x), right=at(block.right), rails=rails))
        short.bars = [replace(one, x=at(one.x), w=at(one.x + one.w) - at(one.x)) for one in self.bars]
        return short


_LEAST_GAP = 0.35  # of what lies between pills


def _shorter(pills: list[tuple[float, float]], width: float, times: float) -> Callable[[float], float]:
    """Where each x of a drawing lies when it is that many times narrower: gaps shrink first, pills by the rest."""
    covered: list[list[float]] = []
    for left, right in sorted(pills):
        if covered and left <= covered[-1][1]:
            covered[-1][1] = max(covered[-1][1], right)
        else:
            covered.append([left, right])
    boxes = sum(right - left for left, right in covered)
    gaps = max(width - boxes, 1.0)
    of_boxes = min(1.0, (width / times - _LEAST_GAP * gaps) / boxes) if boxes else 1.0
    of_gaps = (width / times - of_boxes * boxes) / gaps

    def at(x: float) -> float:
        inside = sum(min(x, right) - left for left, right in covered if left < x)
        return inside * of_boxes + (x - inside) * of_gaps

    return at


def _fitted_texts(node: Node, role: Role, room: float, tag: str) -> tuple[str, str]:
    if role == "bead":
        return "", ""
    if role == "tag":
        return tag, ""
    if role == "rest":
        return fit(tag, room, TAG_SIZE), ""
    size = WORD_SIZE * (1.08 if role == "state" else 1.0)  # a state's word is bold, which is wider
    word = as_word(node.word)
    if not tag:
        return fit(word, room, size), ""
    # the tag may take what the word leaves, but never more than half of the pill; two words leave it nothing
    left = room - text_width(word, size) - 8
    if node.counterpart is not None and left < 30:
        return fit(word, room, size), ""
    left = max(left, room * 0.46)
    tag = fit(tag, left, TAG_SIZE)
    return fit(word, room - 8 - text_width(tag, TAG_SIZE), size), tag


# ---- bands -----------------------------------------------------------------------------------------------------------
WIDEST, THINNEST = 14.0, 0.9


@dataclass(slots=True)
class Band:
    """One link of the graph. `d` is its SVG path, empty where the drawing shows the link by nearness alone."""

    source: str
    target: str
    kind: str
    look: str  # class: r stream, s neutral, m reading line, a pattern, or a pill's class for its hue
    width: float
    d: str
    dashed: bool = False
    weight: float | None = None
    contribution: float | None = None


@dataclass(frozen=True, slots=True)
class Gauge:
    """Number → width: WIDEST · (number / largest) ** power, at least THINNEST; the legend states both."""

    by: WidthBy
    largest: float
    power: float

    def __call__(self, edge: Edge) -> float:
        value = self.number(edge)
        if not value or not self.largest:
            return THINNEST
        return max(THINNEST, WIDEST * (value / self.largest) ** self.power)

    def number(self, edge: Edge) -> float | None:
        """The edge's norm, or its |contribution| or |influence| in logits."""
        value: float | None = getattr(edge, self.by)
        return None if value is None else abs(value)
