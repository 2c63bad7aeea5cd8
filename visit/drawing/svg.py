"""The layout as SVG text: once with classes (for pages with a style sheet), once with plain colours (for files).

Every text that comes from a prompt, a token or a model's name is made visible and then escaped here; attributes hold
numbers and our own words only. Attributes stand in single quotes, which JSON does not escape, so less is sent.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any
from xml.sax.saxutils import escape

from visit.drawing.records import (
    BAR_H,
    BAR_Y,
    LOGITS_LINE,
    NAME_Y,
    TAG_SIZE,
    WORD_SIZE,
    Band,
    Bar,
    Caption,
    Pill,
    Sheet,
)
from visit.drawing.style import Legend, PaletteName, band_colours, page_colours, pill_colours
from visit.models.catalog import portable
from visit.text.citation import bibtex
from visit.text.numbers import percent
from visit.text.visible import as_word, fit, text_width

FONT = "'Source Sans 3', 'Source Sans Pro', 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"
PLAIN_FONT = (
    "Arial, Liberation Sans, Helvetica, Noto Sans, DejaVu Sans, sans-serif"  # some programs read the first only
)
# has the signs of white space: a program that looks for them itself may take a bold face for the whole text
_WHITE_SIGNS, _SIGN_FONT, _SIGN_SIZE = set("␣⏎⇥"), f"DejaVu Sans, {PLAIN_FONT}", 12.5
_ROUND = {"pill": 5.0, "state": 7.0, "rest": 7.5, "tag": 5.0, "bead": 6.0, "card": 7.0}


class Ink:
    """Attributes for every part of the drawing: class names, or plain colours of one theme."""

    def __init__(self, theme: str | None = None, palette: PaletteName = "safe") -> None:
        self.plain = theme is not None
        self.pills = pill_colours(theme or "light", palette)
        self.bands = band_colours(theme or "light", palette)
        self.page = page_colours(theme or "light")

    def group(self, pill: Pill, look: str, number: int) -> str:
        if self.plain:
            return ""
        return f" class='n {look} {pill.role}' data-i='{number}'"

    def box(self, look: str, role: str) -> str:
        if not self.plain:
            return ""
        fill, border, _ = self.pills["o" if role in ("rest", "card") else look]
        if role in ("rest", "card"):
            fill = self.page["page"]
        dash = " stroke-dasharray='4 3'" if role == "rest" else ""
        width = " stroke-width='1.6'" if role in ("state", "bead") else ""
        return f" fill='{fill}' stroke='{self._edge(role, border)}'{width}{dash}"

    def _edge(self, role: str, border: str) -> str:
        return self.page["quiet"] if role in ("state", "bead", "rest") else border

    def word(self, look: str, role: str, quiet: bool = False) -> str:
        if not self.plain:
            return " class='q'" if quiet else ""
        grey = role == "rest" or (quiet and look in "go")  # on a coloured pill grey could not be read
        colour = self.page["tag"] if grey else self.pills[look][2]
        return f" fill='{colour}'" + (" font-weight='600'" if role == "state" else "")

    def sign(self, look: str) -> str:
        return f" fill='{self.pills[look][2]}'" if self.plain else " class='sign'"

    def tag(self, look: str) -> str:
        if not self.plain:
            return " class='tag'"
        return f" fill='{self.page['tag'] if look in 'go' else self.pills[look][2]}' font-size='{TAG_SIZE:g}'"

    def band(self, band: Band, number: int) -> str:
        dash = " stroke-dasharray='6 4'" if band.dashed else ""
        if self.plain:
            return f" stroke='{self.bands[band.look]}' stroke-width='{band.width:.1f}'{dash}"
        return f" class='{band.look}' stroke-width='{band.width:.1f}' data-e='{number}'{dash}"

    def share(self, of_target: bool) -> str:
        if not self.plain:
            return " class='share t2'" if of_target else " class='share'"
        return f" fill='{self.bands['t2' if of_target else 'r']}'"

    def bar(self, look: str) -> str:
        return f" fill='{self.pills[look][0]}'" if self.plain else f" class='bar {look}'"

    def text(self, kind: str) -> str:
        if not self.plain:
            return f" class='{kind}'"
        if kind == "title":
            return f" fill='{self.page['ink']}' font-weight='600' font-size='13'"
        return f" fill='{self.page['quiet']}' font-size='{TAG_SIZE:g}'"


def _n(value: float) -> str:
    """A coordinate with at most one decimal."""
    return f"{value:.1f}".removesuffix(".0")


def draw_pill(pill: Pill, look: str, number: int, ink: Ink, target: str | None = None) -> str:
    """One node: its box and its texts."""
    role = pill.role
    parts = [
        f"<g{ink.group(pill, look, number)}><rect x='{_n(pill.x)}' y='{_n(pill.y)}' width='{_n(pill.w)}'"
        f" height='{_n(pill.h)}' rx='{_ROUND[role]:g}'{ink.box(look, role)}/>"
    ]
    if role == "card":
        parts.append(_predictions(pill, target, ink))
    elif pill.word:
        parts.append(_sign(pill, look, ink) + _pill_texts(pill, look, ink))
    parts.append("</g>")
    return "".join(parts)


def _sign(pill: Pill, look: str, ink: Ink) -> str:
    """In the margin before the word, what its colour says: down for last ranks or against, A's side, B's side."""
    corners = {"b": "M1.5 -2h4.6l-2.3 4.4z", "da": "M5.6 -2.6v5.2l-4 -2.6z", "db": "M1.6 -2.6v5.2l4 -2.6z"}
    path = corners.get(look) or corners.get(look[0])
    if path is None or pill.role == "rest":
        return ""
    return f"<path d='{path}' transform='translate({_n(pill.x)} {_n(pill.cy)})'{ink.sign(look)}/>"


def _pill_texts(pill: Pill, look: str, ink: Ink) -> str:
    role = pill.role
    y = _n(pill.cy + (4.2 if role not in ("rest", "tag") else 3.9))
    centred = role in ("tag", "rest")
    x = pill.x + pill.w / 2 if centred else pill.x + pill.pad
    anchor = " text-anchor='middle'" if centred else ""
    size = f" font-size='{TAG_SIZE:g}'" if centred and ink.plain else ""
    text = f"<text x='{_n(x)}' y='{y}'{anchor}{size}{ink.word(look, role, pill.quiet)}>{escape(pill.word)}</text>"
    if pill.tag:
        text += f"<text x='{_n(pill.right - 7)}' y='{y}' text-anchor='end'{ink.tag(look)}>{escape(pill.tag)}</text>"
    return text


def _predictions(pill: Pill, target: str | None, ink: Ink) -> str:
    """The top predictions as words with bars, the longest for the most probable; the target's bar has its hue."""
    node = pill.node
    tokens, probs = node.tokens[:10], node.probs[:10]
    top = max((p for p in probs if p), default=1.0)
    words = f" fill='{ink.page['ink']}'" if ink.plain else ""
    lines = []
    for i, (token, p) in enumerate(zip(tokens, probs, strict=False)):
        y = pill.y + 4 + i * LOGITS_LINE
        number = escape(percent(p, narrow=True))
        bar = max(1.0, (pill.w - 12) * (p or 0.0) / top)
        room = pill.w - 22 - text_width(number, TAG_SIZE)
        look = ink.share(token == target)
        size = f"width='{_n(bar)}' height='{LOGITS_LINE - 3:g}' rx='3'"
        lines.append(
            f"<rect x='{_n(pill.x + 6)}' y='{_n(y + 2)}' {size}{look}/>"
            f"<text x='{_n(pill.x + 10)}' y='{_n(y + 14)}'{words}>{escape(fit(as_word(token), room))}</text>"
            f"<text x='{_n(pill.right - 8)}' y='{_n(y + 14)}' text-anchor='end'{ink.tag('g')}>{number}</text>"
        )
    return "".join(lines)


def draw_bar(bar: Bar, ink: Ink) -> str:
    """A folded state's bar: pale, with a strong edge on top, which makes steps of neighbours."""
    height = max(BAR_H * bar.share, 1.0)
    y = BAR_Y - height
    return (
        f"<rect x='{_n(bar.x)}' y='{y:.1f}' width='{_n(bar.w)}' height='{height:.1f}'{ink.bar('t2')}/>"
        f"<rect x='{_n(bar.x)}' y='{y:.1f}' width='{_n(bar.w)}' height='1.6'{ink.bar('t4')}/>"
    )


def draw_caption(caption: Caption, ink: Ink) -> str:
    anchor = " text-anchor='middle'" if caption.middle else ""
    layer = f" data-layer='{caption.layer}'" if caption.layer is not None and not ink.plain else ""
    where = f"x='{_n(caption.x)}' y='{_n(caption.y)}'"
    return f"<text {where}{anchor}{layer}{ink.text(caption.kind)}>{escape(caption.text)}</text>"


def drawing(sheet: Sheet, bands: Iterable[Band], looks: Mapping[str, str], ink: Ink, target: str | None = None) -> str:
    """Bands, pills and names of a layout, without the frame around them."""
    paths = "".join(f"<path d='{b.d}'{ink.band(b, i)}/>" for i, b in enumerate(bands) if b.d)
    pills = "".join(draw_pill(p, looks[p.id], i, ink, target) for i, p in enumerate(sheet.pills.values()))
    names = [draw_bar(bar, ink) for bar in sheet.bars]
    names += [draw_caption(c, ink) for c in sheet.captions if c.y != NAME_Y]
    columns = [draw_caption(c, ink) for c in sheet.captions if c.y == NAME_Y]
    if ink.plain:
        return f"<g fill='none'>{paths}</g>{''.join(names)}{''.join(columns)}{pills}"
    top = NAME_Y - 14
    back = f"<rect x='0' y='{top:g}' width='100%' height='20'/>"  # covers what scrolls under pinned names
    return (
        f"<g class='bands'>{paths}</g><g class='nodes'>{pills}</g><g class='names'>{''.join(names)}</g>"
        f"<g class='columns' data-top='{top:g}'>{back}{''.join(columns)}</g>"
    )


def mark(pill: Pill, ink: Ink) -> str:
    """The outline of the selected node."""
    look = f"stroke='{ink.page['ink']}'" if ink.plain else "class='marked'"
    return (
        f"<rect x='{_n(pill.x - 2)}' y='{_n(pill.y - 2)}' width='{_n(pill.w + 4)}' height='{_n(pill.h + 4)}'"
        f" rx='{_ROUND[pill.role] + 2:g}' fill='none' stroke-width='2.4' {look}/>"
    )


def frame(body: str, width: float, height: float) -> str:
    """The drawing alone, with classes, for a page that brings style sheet, legend and caption."""
    size = f"width='{width:.0f}' height='{height:.0f}' viewBox='0 0 {width:.0f} {height:.0f}'"
    return f"<svg xmlns='http://www.w3.org/2000/svg' {size} font-size='{WORD_SIZE:g}'>{body}</svg>"


def document(
    body: str, width: float, height: float, meta: Mapping[str, Any], caption: str, ink: Ink, style: str = ""
) -> str:
    """A complete SVG file around a drawing, with its caption and its provenance inside."""
    fill = f"fill='{ink.page['page']}'" if ink.plain else "class='page'"
    page = f"<rect width='100%' height='100%' {fill}/>"
    font = PLAIN_FONT if ink.plain else FONT
    provenance = escape(json.dumps(visible_tree(portable(meta) | {"cite": bibtex()}), ensure_ascii=True, default=str))
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width:.0f}' height='{height:.0f}'"
        f" viewBox='0 0 {width:.0f} {height:.0f}' class='visit' font-family=\"{font}\""
        f" font-size='{WORD_SIZE:g}'><title>{escape(caption)}</title><metadata>{provenance}</metadata>"
        f"{style}{page}{body}</svg>"
    )


def visible_tree(value: Any) -> Any:
    """Provenance as JSON can hold it: texts lose only what no XML file may contain (as `visible` spells it)."""
    if isinstance(value, Mapping):
        return {str(k): visible_tree(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [visible_tree(v) for v in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def draw_legend(legend: Legend, y: float, width: float, ink: Ink) -> tuple[str, float]:
    """The legend in rows no wider than the picture, from `y` down; returns the SVG text and where it ends."""
    parts: list[str] = []
    x, left = 14.0, 14.0

    def text(x: float, words: str, kind: str = "note") -> float:
        font = f' font-family="{_SIGN_FONT}"' if kind == "signs" and ink.plain and _WHITE_SIGNS & set(words) else ""
        look = ink.text("note" if kind == "signs" else kind)
        parts.append(f"<text x='{_n(x)}' y='{_n(y + 13)}'{font}{look}>{escape(words)}</text>")
        return x + text_width(words, TAG_SIZE)

    x = text(x, legend.fill_title) + 10
    for look, words in legend.fill:
        w = max(22.0, text_width(words, TAG_SIZE) + 12)
        if x + w > width - 14:
            x, y = left, y + 24
        box = ink.box(look, "pill")
        word = f" font-size='{TAG_SIZE:g}'" + ink.word(look, "pill")
        group = "" if ink.plain else f" class='n {look} pill key'"
        parts.append(
            f"<g{group}><rect x='{_n(x)}' y='{_n(y)}' width='{_n(w)}' height='18' rx='5'{box}/>"
            f"<text x='{_n(x + w / 2)}' y='{_n(y + 13)}' text-anchor='middle'{word}>{escape(words)}</text></g>"
        )
        x += w + 3
    x, y = left, y + 28
    x = text(x, legend.width_title) + 10
    samples = [("s", w, words, False) for w, words in legend.widths]
    samples += [(look, 4.0, words, dashed) for look, dashed, words in legend.signs]
    for look, w, words, dashed in samples:
        if x + 40 + text_width(words, TAG_SIZE) > width - 14:
            x, y = left, y + 24
        band = Band("", "", "", look, w, "", dashed)
        parts.append(f"<path d='M{_n(x)} {_n(y + 9)}h26' fill='none'{ink.band(band, -1)}/>")
        x = text(x + 31, words) + 14
    if x + 50 + text_width(legend.rest, TAG_SIZE) > width - 14:
        x, y = left, y + 24
    group = "" if ink.plain else " class='n o rest key'"
    box, word = ink.box("o", "rest"), ink.word("o", "rest")
    parts.append(
        f"<g{group}><rect x='{_n(x)}' y='{_n(y + 2)}' width='34' height='15' rx='7.5'{box}/>"
        f"<text x='{_n(x + 17)}' y='{_n(y + 13)}' text-anchor='middle' font-size='{TAG_SIZE:g}'{word}>rest</text></g>"
    )
    x = text(x + 40, legend.rest) + 14
    if x + text_width(legend.sources, TAG_SIZE) > width - 14:
        x, y = left, y + 24
    x = text(x, legend.sources) + 14
    for words in filter(None, legend.words.split(" · ")):
        if x + text_width(words, _SIGN_SIZE) > width - 14 and x > left:
            x, y = left, y + 20
        x = text(x, fit(words, width - 14 - x, _SIGN_SIZE), "signs") + 18
    y += 30
    for i, line in enumerate([legend.caption, *legend.provenance]):
        kind = "note" if i else "column"
        text(left, fit(line, width - 28, TAG_SIZE), kind)
        y += 17
    return "".join(parts), y + 8
