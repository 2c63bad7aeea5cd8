"""The paper the flow graph is laid out on: pills, names and points with their places in pixels, texts cut to fit."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from visit.drawing.records import Level, Node
from visit.text.visible import QUIET, as_word, fit, text_width, visible, word_kind

MARGIN = 14.0
STREAM_Y = 66.0  # centre of the stream
WORK_Y = 120.0  # top of the first row of a workshop
NAME_Y = 108.0  # baseline of the workshops' column names
LINE = 24.0  # from one pill to the next in a row
REST_LINE = 19.0
ROW_GAP = 9.0
PILL_H, REST_H, STATE_H, TAG_H = 20.0, 15.0, 26.0, 17.0
STATE_W, VALUE_W, HEAD_W, NEURON_W, NORM_W, QUERY_W = 112.0, 136.0, 108.0, 120.0, 92.0, 104.0
FOLD_W, FOLD_GAP = 72.0, 12.0
BAR_Y, BAR_H, SHARE_Y = 51.0, 14.0, 33.0  # over folded states: foot and height of bars, baseline of their numbers
COMPACT, COMPACT_W = 10, 58.0  # from so many blocks on, folded ones are narrow: twelve fit beside the app's sidebar
FAN = 62.0  # room in which the bands of a column bend into their sum
LOGITS_W, LOGITS_LINE = 128.0, 19.0
WORD_SIZE, TAG_SIZE = 12.0, 11.0

Role = str  # "state", "pill", "rest", "tag", "bead", "card": how a pill is drawn


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
        word, tag = _texts(node, role, w - 2 * pad, tag)
        placed = self.pills[node.id] = Pill(
            node.id, node, role, x, y, w, h, word, tag, pad, word_kind(node.word) in QUIET
        )
        return placed


def _texts(node: Node, role: Role, room: float, tag: str) -> tuple[str, str]:
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
    if node.twin is not None and left < 30:
        return fit(word, room, size), ""
    left = max(left, room * 0.46)
    tag = fit(tag, left, TAG_SIZE)
    return fit(word, room - 8 - text_width(tag, TAG_SIZE), size), tag


def share_text(share: float | None) -> str:
    """`rest 12 %`, or `rest` where the share is unknown."""
    if share is None:
        return "rest"
    percent = 100 * share
    return "rest <1 %" if percent < 1 else f"rest {percent:.0f} %"  # never 0: a rest stands where something is left out


def percent_text(p: float | None) -> str:
    """A probability as a short text: `23 %`, `4.1 %`, `<0.1 %`; empty when missing."""
    if p is None:
        return ""
    percent = 100 * p
    if percent < 0.1:
        return "<0.1 %"
    if 99 <= percent < 100:  # what is not certain is not rounded to it
        return f"{math.floor(10 * percent) / 10:.1f} %"
    return f"{percent:.0f} %" if percent >= 9.95 else f"{percent:.1f} %"


def source_tag(node: Node) -> str:
    """Where a key or a memory value was made: `←·Mary`; the first position, often an attention sink, `|←When`."""
    if node.source_token is None and node.source_pos is None:
        return ""
    token = visible(node.source_token) if node.source_token is not None else str(node.source_pos)
    return ("|←" if node.source_pos == 0 else "←") + token
