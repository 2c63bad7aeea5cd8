"""What the drawing's colours, widths and dashes mean, and what it is a drawing of: data for the legend and caption."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from unicodedata import bidirectional

from visit.drawing.edges import Gauge, WidthBy
from visit.drawing.records import Flow
from visit.drawing.style import ColorBy, Swatch, scale
from visit.models.catalog import display_name
from visit.text.visible import explained, visible


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


def token_text(named: Any) -> str:
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
    flow: Flow, measure: Gauge, color_by: ColorBy, largest: float, drawn: Iterable[str] = (), folded: bool = False
) -> Legend:
    """Everything the reader must be told to read the picture, in units.

    `drawn`: the words that stand in it; `folded`: bars stand over folded blocks.
    """
    target = _apart(token_text(flow.meta.get("target")) or "the target")
    direction = f"logit of {target}"
    if flow.meta.get("distractor"):
        direction += f" minus logit of {_apart(token_text(flow.meta['distractor']))}"
    titles = {
        "rank": f"Fill: rank of {target} among {flow.d_vocab_text} tokens",
        "probability": f"Fill: probability of {target}",
        "entropy": "Fill: entropy of the reading, in bits",
        "contribution": f"Fill: contribution to the {direction}",
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
    unit: dict[WidthBy, str] = {"norm": "norm", "contribution": "|contribution| in logits"}
    if change:
        unit = {"norm": "change of the norm, B − A", "contribution": "change of the contribution, B − A, in logits"}
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


def _caption(flow: Flow) -> str:
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
        parts.append(f"at position {position} ({_apart(visible(tokens[position]))})")
    if meta.get("target") is not None:
        parts.append(f"target {_apart(token_text(meta['target']))}")
    if meta.get("distractor") is not None:
        parts.append(f"against {_apart(token_text(meta['distractor']))}")
    return " · ".join(parts)


def _provenance(flow: Flow) -> list[str]:
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
