"""Small pictures of the glossary's terms, drawn here: SVG of 240 × 100 in the colours of the page around them.

Ink is the colour of the words; what a term is about has the page's main colour (`--st-primary-color`).
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_MAIN = "var(--st-primary-color, #0b7a75)"
_FORE = "currentColor"
_FAINT = 0.35


def picture(term: str) -> str | None:
    """The picture of a term as one `<svg>` element with a sentence for those who cannot see it; None without one."""
    if term not in _PICTURES:
        return None
    said, parts = _PICTURES[term]
    return f'<svg viewBox="0 0 240 100" role="img" aria-label="{escape(said)}">{"".join(parts)}</svg>'


# ---- strokes ---------------------------------------------------------------------------------------------------------
def _line(x1: float, y1: float, x2: float, y2: float, colour: str = _FORE, width: float = 1.6, dash: str = "") -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<path d="M{x1} {y1}L{x2} {y2}" stroke="{colour}" stroke-width="{width}" fill="none"{dashed}/>'


def _arrow(x1: float, y1: float, x2: float, y2: float, colour: str = _FORE, width: float = 1.6) -> str:
    length = max(((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5, 1e-9)
    dx, dy = (x2 - x1) / length * 7, (y2 - y1) / length * 7
    points = (x2, y2), (x2 - dx - dy / 2, y2 - dy + dx / 2), (x2 - dx + dy / 2, y2 - dy - dx / 2)
    head = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + "Z"
    return _line(x1, y1, round(x2 - dx, 1), round(y2 - dy, 1), colour, width) + f'<path d="{head}" fill="{colour}"/>'


def _disc(x: float, y: float, r: float = 5, colour: str = _FORE) -> str:
    return f'<circle cx="{x}" cy="{y}" r="{r}" fill="{colour}"/>'


def _box(x: float, y: float, w: float, h: float, colour: str = _FORE, filled: float = 0.0, dash: str = "") -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="4" stroke="{colour}" stroke-width="1.4" fill="{colour}" '
        f'fill-opacity="{filled:g}"{dashed}/>'
    )


def _said(x: float, y: float, words: str, colour: str = _FORE, anchor: str = "middle") -> str:
    return f'<text x="{x}" y="{y}" fill="{colour}" font-size="11" text-anchor="{anchor}">{escape(words)}</text>'


def _bars(x: float, base: float, heights: Sequence[float], main: int | None = None, w: float = 11) -> list[str]:
    """Bars beside each other from `base` upwards (a negative height: downwards), one of them in the main colour."""
    return [
        f'<rect x="{x + n * (w + 4):g}" y="{base - max(h, 0):g}" width="{w:g}" height="{abs(h):g}" rx="1.5" '
        f'fill="{_MAIN if n == main else _FORE}" fill-opacity="{1 if n == main else _FAINT}"/>'
        for n, h in enumerate(heights)
    ]


def _curve(x1: float, y1: float, x2: float, y2: float, colour: str, width: float, rise: float = 34) -> str:
    way = f"M{x1} {y1}C{x1} {y1 - rise} {x2} {y2 - rise} {x2} {y2}"
    return f'<path d="{way}" fill="none" stroke="{colour}" stroke-width="{width}" stroke-linecap="round"/>'


# ---- pictures --------------------------------------------------------------------------------------------------------
def _attended(main: int | None) -> list[str]:
    """Three tokens that a fourth looks at, as thick as the pattern says; `main`: the one in the main colour."""
    words, weights = ("Japan", "is", "the", "of"), (0.7, 0.1, 0.2)
    places = (34, 92, 148, 206)
    arcs = [
        _curve(206, 66, x, 66, _MAIN if n == main else _FORE, 2 + 7 * weight, 52)
        for n, (x, weight) in enumerate(zip(places, weights, strict=False))
    ]
    return [*arcs, *(_said(x, 84, word) for x, word in zip(places, words, strict=True))]


def _stream_line(*parts: str) -> list[str]:
    return [_arrow(14, 76, 230, 76, _MAIN, 3), *parts]


_PICTURES: dict[str, tuple[str, list[str]]] = {
    "residual stream": (
        "One arrow runs through the model; attention and MLP of each block read from it and add to it.",
        _stream_line(*(
            part for x, name in ((34, "attention"), (134, "MLP")) for part in (
                _line(x, 76, x, 38), _box(x - 6, 14, 72, 24, _FORE, 0.06), _said(x + 30, 30, name),
                _arrow(x + 60, 38, x + 60, 73), _said(x + 70, 60, "+"),
            )
        )),
    ),
    "block": (
        "Three blocks one after the other on the stream; each holds attention and an MLP.",
        _stream_line(*(
            part for n in range(3) for part in (
                _box(22 + 68 * n, 22, 54, 42, _FORE, 0.06), _said(49 + 68 * n, 38, "attention"),
                _said(49 + 68 * n, 55, "MLP"), _line(49 + 68 * n, 64, 49 + 68 * n, 76),
            )
        )),
    ),
    "norm": (
        "Two vectors of one direction: the longer one has the larger norm.",
        [_arrow(20, 84, 80, 60), _said(50, 94, "short"), _arrow(100, 84, 220, 36, _MAIN, 3), _said(170, 84, "long")],
    ),
    "pattern": ("A token looks at earlier tokens: 70, 10 and 20 percent, together all of its attention.", [
        *_attended(0), _said(34, 97, "0.7"), _said(92, 97, "0.1"), _said(148, 97, "0.2"),
    ]),
    "value": ("Looking at one token only, a head would write one vector: that token's memory value.", [
        _said(30, 84, "Japan"), _curve(206, 66, 34, 66, _FORE, 3, 52), _said(206, 84, "of"),
        _box(66, 40, 76, 24, _MAIN, 0.12), _said(104, 56, "Tokyo, Asia", _MAIN), _line(36, 66, 66, 56, _MAIN),
    ]),
    "head": ("A head's output is the sum of memory values, each times its share of the pattern.", [
        _said(18, 26, "0.7 ×", anchor="start"), _arrow(58, 24, 128, 12, _MAIN, 2.4),
        _said(18, 54, "0.1 ×", anchor="start"), _arrow(58, 50, 104, 56), _said(18, 82, "0.2 ×", anchor="start"),
        _arrow(58, 80, 108, 74), _said(146, 52, "="), _arrow(164, 60, 228, 38, _MAIN, 3),
    ]),
    "neuron": ("The stream is compared with the neuron's key; as far as they fit, the neuron writes its value.", [
        _box(10, 30, 50, 26, _FORE, 0.06), _said(35, 47, "stream"), _arrow(62, 43, 92, 43),
        _box(94, 30, 34, 26, _FORE, 0.06), _said(111, 47, "key"), _arrow(130, 43, 166, 43, _MAIN, 3),
        _said(147, 34, "3.1", _MAIN), _box(168, 30, 48, 26, _MAIN, 0.12), _said(192, 47, "value", _MAIN),
        _said(147, 76, "coefficient: how well they fit"),
    ]),
    "lens": ("A vector goes through the final norm and the unembedding and becomes probabilities of words.", [
        _arrow(10, 64, 48, 36, _MAIN, 3), _said(28, 84, "vector"), _arrow(54, 50, 74, 50),
        _box(76, 36, 42, 28, _FORE, 0.06), _said(97, 54, "norm"), _arrow(120, 50, 136, 50),
        _box(138, 36, 34, 28, _FORE, 0.06), _said(155, 54, "W_U"), _arrow(174, 50, 188, 50),
        *_bars(192, 72, (44, 18, 9), 0), _said(212, 88, "words"),
    ]),
    "fitted lens": ("A vector of a middle block is first carried to the last block by a linear map, then read.", [
        _arrow(12, 64, 40, 44), _said(30, 84, "block 5"), _arrow(48, 50, 66, 50), _box(68, 36, 46, 28, _MAIN, 0.12),
        _said(91, 54, "map", _MAIN), _arrow(116, 50, 134, 50), _arrow(140, 64, 164, 34, _MAIN, 3),
        _said(150, 84, "as the last"), _arrow(170, 50, 186, 50), *_bars(192, 72, (44, 18, 9), 0),
    ]),
    "rank": ("Words by falling logit; the target is the third, so its rank is 3.", [
        *_bars(46, 76, (58, 46, 34, 22, 14, 9, 5), 2, 16), _said(94, 92, "3", _MAIN), _said(54, 92, "1"),
        _said(74, 92, "2"),
    ]),
    "entropy": ("One word has everything: low entropy. All words are equal: high entropy.", [
        *_bars(20, 72, (56, 4, 3, 3, 2), 0), _said(56, 90, "low: sure"), *_bars(142, 72, (16, 15, 16, 14, 15)),
        _said(178, 90, "high: unsure"),
    ]),
    "contribution": ("Parts push the target up or pull it down; the pushes add up to its logit.", [
        _line(16, 62, 150, 62), *_bars(24, 62, (34, 12, -14, 20, -6), 0, 18), _said(166, 58, "="),
        *_bars(186, 62, (46,), 0, 24), _line(180, 62, 222, 62), _said(198, 80, "logit"),
    ]),
    "influence": ("A part reaches the logit directly and through later blocks: influence counts all ways.", [
        _disc(24, 60, 6, _MAIN), _said(24, 84, "part"), _arrow(32, 60, 202, 60, _FORE, 1.6),
        _curve(28, 54, 100, 30, _MAIN, 2.4, 8), _box(94, 16, 56, 24, _FORE, 0.06), _said(122, 32, "later"),
        _curve(150, 28, 206, 54, _MAIN, 2.4, -6), _disc(212, 60, 6), _said(212, 84, "logit"),
    ]),
    "effect": ("A part is taken out and the model runs on: the difference of the logit is the effect.", [
        _box(16, 34, 34, 30, _FORE, 0.06, "4 3"), _line(18, 36, 48, 62, _MAIN, 2.6), _line(48, 36, 18, 62, _MAIN, 2.6),
        _said(33, 84, "taken out"), _arrow(58, 49, 108, 49), *_bars(126, 72, (52,), None, 24),
        *_bars(160, 72, (24,), 0, 24), _said(138, 88, "before"), _said(174, 88, "after", anchor="middle"),
        _line(190, 20, 220, 20, _FORE, 1, "2 2"), _line(190, 48, 220, 48, _FORE, 1, "2 2"),
        _arrow(206, 20, 206, 46, _MAIN),
    ]),
    "intersection": ("Two circles of words overlap: the share in both is the intersection.", [
        f'<circle cx="97" cy="48" r="40" fill="{_FORE}" fill-opacity="0.07" stroke="{_FORE}"/>',
        f'<circle cx="143" cy="48" r="40" fill="{_FORE}" fill-opacity="0.07" stroke="{_FORE}"/>',
        _said(76, 52, "A"), _said(164, 52, "B"), _said(120, 46, "in", _MAIN), _said(120, 60, "both", _MAIN),
    ]),
    "ledger": ("Two sums that must be equal, and are compared.", [
        _said(64, 40, "head"), _box(30, 22, 68, 30, _FORE, 0.06), _said(120, 42, "=", _MAIN),
        _box(142, 22, 82, 30, _FORE, 0.06), _said(183, 40, "Σ of its values"),
        _said(120, 78, "compared on this model", _MAIN),
    ]),
    "rest": ("Three parts are drawn; all others are one node, so that the sum stays whole.", [
        *(_disc(24 + 26 * n, 46, 8, _MAIN) for n in range(3)), _said(100, 50, "+"),
        _box(114, 32, 52, 28, _FORE, 0.06, "4 3"), _said(140, 50, "rest"), _said(180, 50, "="), _disc(210, 46, 13),
        _said(210, 82, "the sum"),
    ]),
    "faithfulness": ("Only the parts shown stay as they are, all others are replaced: how much comes back?", [
        *(_disc(26 + 30 * (n % 3), 22 + 24 * (n // 3), 7, _MAIN if n in (1, 3, 8) else "none") for n in range(9)),
        *(f'<circle cx="{26 + 30 * (n % 3)}" cy="{22 + 24 * (n // 3)}" r="7" fill="none" stroke="{_FORE}"/>'
          for n in range(9)),
        _arrow(106, 46, 136, 46), _box(146, 34, 80, 24), _box(146, 34, 66, 24, _MAIN, 0.3), _said(186, 78, "82 % back"),
    ]),
}  # fmt: skip
