"""Colours of the flow graph: numbers become classes here, and classes become colours per theme and palette.

A pill's class says what its number means ("t5": the target is ranked first), never a colour, so that one drawing
serves a light page, a dark page and a printed file. The default palette is safe for colour-blind readers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import isqrt, log2
from typing import Any, Literal
from unicodedata import bidirectional

from visit.drawing.records import Gauge, WidthBy
from visit.graph.flowgraph import FlowGraph, Node
from visit.models.catalog import display_name
from visit.text.numbers import percent
from visit.text.visible import explained, visible

Theme = Literal["light", "dark", "auto"]
ColorBy = Literal["rank", "probability", "entropy", "contribution", "influence", "change"]
PaletteName = Literal["safe", "paper"]
Swatch = tuple[str, str]  # class, what it means

# lines of a chart: at least 3 : 1 against a light and a dark page, and 23 apart (ΔE) for every kind of colour blindness
SERIES = ("#077f6b", "#d8490b", "#7b52f0", "#b9389f")
QUIET = "#808080"  # what a chart's lines are compared with: chance, zero

_PROBABILITIES = (0.0001, 0.001, 0.01, 0.1, 0.5)

# The darkest of both hues look alike to some readers, and in print: what is last, or against, bears a sign, too.
DOWN = "▼"

# class -> (fill, border, word); a tag has the word's colour except on grey pills
# of a difference: "da" kept in A alone, "db" in B alone, "dw" in both with another top word
_LIGHT = {
    "da": ("#cfe2f8", "#4d8fd1", "#0d2a4a"),
    "db": ("#f7d3ec", "#c65cab", "#47103a"),
    "dw": ("#e4e0f7", "#7a6cc4", "#1b1440"),
    "g": ("#eef0f4", "#c9ced8", "#1b2330"),
    "o": ("#ffffff", "#c9ced8", "#1b2330"),
    "e1": ("#e9e8f8", "#c3c0e6", "#1b2330"),
    "e2": ("#d0cdf0", "#a9a4de", "#1b2330"),
    "e3": ("#b0abe4", "#8a83d0", "#14121f"),
    "e4": ("#6f66c0", "#5a51a8", "#ffffff"),
    "e5": ("#463c96", "#352c7c", "#ffffff"),
}
_DARK = {
    "da": ("#1d3f66", "#3d76b8", "#eaf2fc"),
    "db": ("#5a1f4c", "#b0539a", "#fceaf7"),
    "dw": ("#322f5c", "#7a71c9", "#f1f0fb"),
    "g": ("#262b36", "#454c5b", "#e8ebf1"),
    "o": ("#0e1117", "#454c5b", "#e8ebf1"),
    "e1": ("#26263d", "#3d3c66", "#e8ebf1"),
    "e2": ("#322f5c", "#4c4889", "#f1f0fb"),
    "e3": ("#47418a", "#625bb0", "#ffffff"),
    "e4": ("#8f88dd", "#a9a3ea", "#0e0c1c"),
    "e5": ("#c2bdfa", "#d9d6ff", "#0e0c1c"),
}
_HUES = {
    ("light", "green-blue"): [
        "#dcf0ea #b5d9cd",
        "#b4decf #8cc3b0",
        "#7fc6b0 #58a78f",
        "#167e68 #0f6654",
        "#005a48 #00443a",
    ],
    ("light", "vermilion"): [
        "#fbe6da #eac3ad",
        "#f7cbb0 #e0a583",
        "#f0a47c #d5834f",
        "#c24a08 #a03c04",
        "#8f3300 #702700",
    ],
    ("light", "green"): ["#e0f1df #bcdcba", "#bde2b9 #96c792", "#8ccb87 #64ab5f", "#2b7d2f #1f6323", "#155a1c #0b4412"],
    ("light", "red"): ["#fbe4e4 #eabfbf", "#f6c8c8 #e0a0a0", "#ee9f9f #d37878", "#c23838 #a12a2a", "#8d1f22 #6f1418"],
    ("dark", "green-blue"): [
        "#17332f #27514a",
        "#1a4a42 #2b6e62",
        "#1f6557 #369482",
        "#35a98c #55c7aa",
        "#6fe3c2 #a0f2da",
    ],
    ("dark", "vermilion"): [
        "#3b2519 #5e3b28",
        "#57301a #85492a",
        "#7a3d19 #ab5c2e",
        "#e07b3e #f09a66",
        "#ffae7d #ffcfb0",
    ],
    ("dark", "green"): ["#1a331c #2c542f", "#1f4a22 #337238", "#276529 #419045", "#4fa853 #72c475", "#8fe08f #b8f2b7"],
    ("dark", "red"): ["#3b2022 #5e3336", "#572629 #853e42", "#7a2e32 #ab484d", "#ea7a7a #f59c9c", "#ffabab #ffcdcd"],
}
_PALETTES = {"safe": ("green-blue", "vermilion"), "paper": ("green", "red")}
_WORD_ON_HUE = {"light": ["#1b2330"] * 3 + ["#ffffff"] * 2, "dark": ["#f2f4f8"] * 3 + ["#07120f"] * 2}

# everything that is not a pill: page, words, quiet words, panel, stream, neutral band, reading line, gold
_PAGE = {
    "light": {
        "page": "#ffffff",
        "ink": "#1b2330",
        "quiet": "#576070",
        "panel": "#f7f8fa",
        "r": "#c3cad6",
        "s": "#aeb6c4",
        "m": "#c6ccd7",
        "a": "#e0ac2b",
        "tag": "#525b6b",
    },
    "dark": {
        "page": "#0e1117",
        "ink": "#e8ebf1",
        "quiet": "#a3abba",
        "panel": "#141820",
        "r": "#4b5566",
        "s": "#5f6a7d",
        "m": "#444d5c",
        "a": "#c99a2e",
        "tag": "#b1b8c6",
    },
}


def pill_colours(theme: str, palette: PaletteName) -> dict[str, tuple[str, str, str]]:
    """Every pill class with its (fill, border, word) in one theme, "light" or "dark"."""
    colours = dict(_LIGHT if theme == "light" else _DARK)
    for letter, hue in zip("tb", _PALETTES[palette], strict=True):
        for step, pair in enumerate(_HUES[theme, hue], start=1):
            fill, border = pair.split()
            colours[f"{letter}{step}"] = (fill, border, _WORD_ON_HUE[theme][step - 1])
    return colours


def page_colours(theme: str) -> dict[str, str]:
    """Page, words, panels and bands that carry no number, in one theme."""
    return _PAGE[theme]


def band_colours(theme: str, palette: PaletteName) -> dict[str, str]:
    """Every band class with its colour: hues for r(anks), `r` stream, `s` neutral, `m` reading line, `a` pattern."""
    page = _PAGE[theme]
    colours = {name: page[name] for name in "rsma"}
    pills = pill_colours(theme, palette)
    # a pale pill has a border to stand out by, a band has not: it takes the border's colour there
    colours |= {name: pair[1] if name[1] in "123" else pair[0] for name, pair in pills.items() if name[0] in "tbe"}
    colours |= {name: pills[name][1] for name in ("da", "db", "dw")}
    return colours


def rank_bounds(d_vocab: int) -> list[int]:
    """The last rank of each step of the coloured range, strongest first; the range ends at max(10, √V)."""
    reach = max(10, isqrt(max(d_vocab, 1)))
    return [1, *(max(i + 2, int(reach**q)) for i, q in enumerate((0.25, 0.5, 0.75))), reach]


_CHANGES = {
    "only A": ("da", "◂ kept in A alone"),
    "only B": ("db", "▸ kept in B alone"),
    "word": ("dw", "in both, another top word"),
    "alike": ("g", "in both, alike"),
}


def pill_class(color_by: ColorBy, d_vocab: int, largest: float) -> Callable[[Node], str]:
    """The function that gives a node its class.

    `largest` is the greatest |contribution| (or |influence|) in the graph, in logits: the end of that scale.
    Grey ("g"): in the middle of the scale; "o": the node has no such number.
    """
    bounds = rank_bounds(d_vocab)
    bits = log2(max(d_vocab, 2))

    def by_rank(node: Node) -> str:
        if node.rank is None:
            return "o"
        for letter, rank in (("t", node.rank), ("b", d_vocab + 1 - node.rank)):
            if rank <= bounds[-1]:
                return f"{letter}{5 - bisect_left(bounds, rank)}"
        return "g"

    def by_probability(node: Node) -> str:
        if node.prob is None:
            return "o"
        step = sum(node.prob >= bound for bound in _PROBABILITIES)
        return f"t{step}" if step else "g"

    def by_entropy(node: Node) -> str:
        return "o" if node.entropy is None else f"e{5 - min(4, max(0, int(5 * node.entropy / bits)))}"

    def by_logits(moved: float | None) -> str:
        if moved is None:
            return "o"
        step = sum(abs(moved) >= largest * 0.5**k for k in range(1, 6)) if largest > 0 else 0
        return ("t" if moved > 0 else "b") + str(step) if step else "g"

    def by_change(node: Node) -> str:
        return _CHANGES.get(node.status or "", ("g", ""))[0]

    if color_by == "change":
        return by_change
    return {
        "rank": by_rank, "probability": by_probability, "entropy": by_entropy,
        "contribution": lambda node: by_logits(node.contribution), "influence": lambda node: by_logits(node.influence),
    }[color_by]  # fmt: skip


def scale(color_by: ColorBy, d_vocab: int, largest: float) -> list[Swatch]:
    """The legend of the fill: classes with the numbers they stand for, in reading order."""
    if color_by == "rank":
        return _rank_scale(d_vocab)
    if color_by == "probability":
        names = ["under 0.01 %", "0.01 %", "0.1 %", "1 %", "10 %", "50 % or more"]
        return [("t5", names[5]), *((f"t{i}", f"from {names[i]}") for i in (4, 3, 2, 1)), ("g", names[0])]
    if color_by == "change":
        return list(_CHANGES.values())
    if color_by == "entropy":
        bits = log2(max(d_vocab, 2))
        return [(f"e{5 - i}", f"{bits * i / 5:.1f}–{bits * (i + 1) / 5:.1f}") for i in range(5)]
    signed = [largest * 0.5**k for k in range(1, 6)]
    up = [(f"t{5 - i}", f"+{value:.2g}") for i, value in enumerate(signed)]
    down = [(f"b{5 - i}", f"{DOWN} −{value:.2g}") for i, value in enumerate(signed)]
    none = "a state, or adds nothing to the stream" if color_by == "influence" else "adds nothing to the stream"
    return [*up, ("g", "about 0"), *reversed(down), ("o", none)]


def _span(first: int, last: int) -> str:
    return f"{first:,}" if first == last else f"{first:,}–{last:,}"


def _rank_scale(d_vocab: int) -> list[Swatch]:
    bounds = rank_bounds(d_vocab)
    top: list[Swatch] = []
    bottom: list[Swatch] = []
    for i, last in enumerate(bounds):
        first = 1 if i == 0 else bounds[i - 1] + 1
        top.append((f"t{5 - i}", _span(first, last)))
        from_below = "last" if last == 1 else _span(d_vocab + 1 - last, d_vocab + 1 - first)
        bottom.append((f"b{5 - i}", f"{DOWN} {from_below}"))
    return [*top, ("g", "between"), *reversed(bottom)]


def style(theme: str, palette: PaletteName, scope: str, page_scope: str | None = None) -> str:
    """CSS that gives every class its colours (`--f`, `--b`, `--w`, `--l`) and the page its own, under `scope`."""
    page = page_colours(theme)
    bands = band_colours(theme, palette)
    rules = []
    if page_scope is not None:
        names = {"stream": "r", "neutral": "s", "reading": "m", "gold": "a", "quiet": "quiet", "tag": "tag"}
        parts = [f"--{name}:{page[key]}" for name, key in names.items()]
        parts += [
            f"--page:var(--st-background-color,{page['page']})",
            f"--ink:var(--st-text-color,{page['ink']})",
            f"--panel:var(--st-secondary-background-color,{page['panel']})",
            f"--line:var(--st-border-color,{page['m']})",
            "--focus:var(--st-primary-color,#3b6fe0)",
        ]
        rules.append(f"{page_scope}{{{';'.join(parts)}}}")
    for name, (fill, border, word) in pill_colours(theme, palette).items():
        band = f";--l:{bands[name]}" if name in bands else ""
        rules.append(f"{scope} .{name}{{--f:{fill};--b:{border};--w:{word}{band}}}")
    return "".join(rules)


# ---- what the drawing's colours, widths and dashes mean, and what it is a drawing of ---------------------------------
@dataclass(frozen=True, slots=True)
class Legend:
    """The legend as data: the app shows it as HTML, the files draw it."""

    fill_title: str
    fill: list[Swatch]
    width_title: str
    widths: list[tuple[float, str]]  # pixels, label
    signs: list[tuple[str, bool, str]]  # look of a band, dashed or not, label
    rest: str
    sources: str
    words: str  # what the signs in the drawn words mean; empty where none occur
    caption: str
    provenance: list[str]

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def named_token(named: Any) -> str:
    """The visible form of `{"id", "token"}`, of a token, or of an id without a token."""
    if isinstance(named, dict):
        token = named.get("token")
        return visible(token) if token is not None else f"[{named.get('id')}]"
    return visible(str(named)) if named is not None else ""


def _apart(text: str) -> str:
    """Right-to-left text that leaves the words around it in place, drawn as the tokens run, from left to right.

    Other text stays bare: some programs draw the marks as boxes.
    """
    return f"\u2066{text}\u2069" if any(bidirectional(c) in ("R", "AL", "AN") for c in text) else text


def legend(
    flow: FlowGraph, measure: Gauge, color_by: ColorBy, largest: float, drawn: Iterable[str] = (), folded: bool = False
) -> Legend:
    """Everything the reader must be told to read the picture, in units.

    `drawn`: the words that stand in it; `folded`: bars stand over folded blocks.
    """
    target = _apart(named_token(flow.meta.get("target")) or "the target")
    direction = f"logit of {target}"
    if flow.meta.get("distractor"):
        direction += f" minus logit of {_apart(named_token(flow.meta['distractor']))}"
    titles = {
        "rank": f"Fill: rank of {target} among {flow.d_vocab:,} tokens",
        "probability": f"Fill: probability of {target}",
        "entropy": "Fill: entropy of the reading, in bits",
        "contribution": f"Fill: contribution to the {direction}",
        "influence": f"Fill: influence on the {direction}, to first order",
        "change": "Fill: what the pruning keeps, and what is read",
    }
    if color_by == "change":
        signs = [("s", False, "B carries more"), ("s", True, "B carries less"), ("a", False, "change of the pattern")]
    else:
        signs = [
            ("a", False, "attention pattern"),
            ("s", False, "added"),
            ("s", True, "neuron with activation below 0"),
            ("e4" if color_by == "entropy" else "t4", False, "in the hue of its source"),
        ]
    bars = [("bar over a folded block:", f"probability of {target} after it")] if folded else []
    return Legend(
        fill_title=titles[color_by],
        fill=scale(color_by, flow.d_vocab, largest),
        width_title=_width_title(measure, color_by == "change"),
        widths=_widths(measure),
        signs=signs,
        rest="left out: its share",
        sources="← the token a key or memory value was made at, |← at the first position",
        words=" · ".join(f"{sign} {meaning}" for sign, meaning in [*explained(drawn), *bars]),
        caption=_caption(flow),
        provenance=_provenance(flow),
    )


def _width_title(measure: Gauge, change: bool) -> str:
    unit: dict[WidthBy, str] = {
        "norm": "norm", "contribution": "|contribution| in logits",
        "influence": "|influence| in logits, to first order",
    }  # fmt: skip
    if change:
        unit = {name: f"change of the {name}, B − A{'' if name == 'norm' else ', in logits'}" for name in unit}
    return f"Width: {unit[measure.by]}, to the power {measure.power:g}"


def _widths(measure: Gauge) -> list[tuple[float, str]]:
    """Three round numbers of the scale with their widths."""
    found = []
    for share in (1.0, 0.1, 0.01):
        value = float(f"{measure.largest * share:.1g}")
        if value:
            width = 14.0 * (value / measure.largest) ** measure.power
            found.append((round(max(0.9, width), 1), f"{value:g}"))
    return found


def _caption(flow: FlowGraph) -> str:
    one = _caption_of(flow.meta)
    return f"B − A · A: {one} · B: {_caption_of(flow.meta['b'])}" if "b" in flow.meta else one


def _caption_of(meta: dict[str, Any]) -> str:
    tokens = meta.get("tokens") or []
    position = meta.get("position")
    parts = [
        f"{_apart(visible(display_name(str(meta.get('model', 'model')))))}",
        f"“{_apart(visible(str(meta.get('prompt', ''))))}”" + (" as a chat message" if meta.get("chat") else ""),
    ]
    if position is not None and tokens:
        named = meta.get("position_token") or tokens[position]
        parts.append(f"at position {position} ({_apart(visible(named))})")
    if meta.get("target") is not None:
        parts.append(f"target {_apart(named_token(meta['target']))}")
    if meta.get("distractor") is not None:
        parts.append(f"against {_apart(named_token(meta['distractor']))}")
    if "influence" in meta:
        parts.append(f"the heads and neurons shown have {percent(meta['influence']['share'])} of all |influence|")
    parts.append(_lens_of(meta.get("lens")))
    return " · ".join(parts)


def _lens_of(lens: dict[str, Any] | None) -> str:
    """Through which lens the states are read, and whether the parts that attention adds are, too."""
    if lens is None:
        return "plain lens"
    return (
        f"states {'and attention ' if lens.get('carries_parts') else ''}through the lens {visible(str(lens['name']))}"
    )


def _provenance(flow: FlowGraph) -> list[str]:
    meta = flow.meta
    lines = []
    revision = meta.get("revision")
    setting = [f"revision {visible(str(revision))[:12]}"] if revision else []
    setting += [visible(str(meta[name])) for name in ("dtype", "quantization") if meta.get(name)]
    versions = meta.get("versions") or {}
    setting += [f"{visible(str(name))} {visible(str(version))}" for name, version in versions.items()]
    lines.append(" · ".join(part for part in setting if part))
    ledger = meta.get("ledger") or {}
    if ledger:
        state = "all identities hold" if ledger.get("holds") else "an identity fails: do not trust this picture"
        error = ledger.get("max_rel_error")
        lines.append(f"Ledger: {state}" + (f", largest relative error {error:.1e}" if isinstance(error, float) else ""))
    return lines
