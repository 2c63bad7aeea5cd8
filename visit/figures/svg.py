"""An Altair chart as SVG text that stands inside a page of either theme: drawn here, nothing fetched, no script."""

from __future__ import annotations

import re
import time
from html import escape
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from visit.errors import VisitError
from visit.figures.aside import drawn_aside

if TYPE_CHECKING:
    import pandas as pd

TRIES = 100  # of 50 ms
_VEGA_LITE = "6.4"  # what altair 6.3 writes
_INK = "currentColor"  # the words' colour of the page around it
_CONFIG = {
    "aria": False,  # a label for every mark would make a file three times as large; the whole chart has one
    "background": "transparent",
    "font": "Helvetica, Arial, sans-serif",
    "view": {"stroke": "transparent"},
    "title": {"color": _INK},
    "legend": {"labelColor": _INK, "titleColor": _INK, "titleFontWeight": "normal"},
    "header": {"labelColor": _INK},
    "axis": {
        "labelColor": _INK, "titleColor": _INK, "titleFontWeight": "normal", "gridColor": _INK, "gridOpacity": 0.12,
        "domainColor": _INK, "domainOpacity": 0.4, "tickColor": _INK, "tickOpacity": 0.4,
    },
}  # fmt: skip
_NUMBERS = re.compile(r'( (?:d|transform)=")([^"]*)')
_LONG = re.compile(r"(\d+\.\d)\d+")


def chart_spec(chart: Any) -> dict[str, Any]:
    """The chart as a Vega-Lite specification that holds its data.

    Whoever shows Altair charts in another thread of this process (Streamlit does) takes the data out of every chart
    that is converted meanwhile, ours too: it is converted again until the data are there.
    """
    if isinstance(chart, dict):  # it was converted before
        return chart
    for _ in range(TRIES):
        spec: dict[str, Any] = chart.to_dict(validate=False)
        if _holds_data(spec, set(spec.get("datasets", ()))):
            return spec
        time.sleep(0.05)
    raise VisitError("The server is busy drawing other charts. Try again.")


def _holds_data(part: Any, names: set[str]) -> bool:
    if isinstance(part, list):
        return all(_holds_data(one, names) for one in part)
    if not isinstance(part, dict):
        return True
    data = part.get("data")
    if isinstance(data, dict) and "name" in data and "values" not in data and data["name"] not in names:
        return False
    return all(_holds_data(one, names) for key, one in part.items() if key not in ("datasets", "data"))


def chart_svg(chart: Any, label: str, words: float = 1.0) -> str:
    """The chart as one `<svg>` element with `label` for those who cannot see it; lengths to a tenth of a pixel.

    Its background is transparent and its words have the colour of the page. `words`: how many times larger they are;
    rows grow with them, and what has a room of its own is cut to it. Raises `VisitError` where the library
    that draws it is missing.
    """
    if find_spec("vl_convert") is None:
        raise VisitError("Reports need the package vl-convert-python: pip install vl-convert-python")
    spec = chart_spec(chart) if words == 1.0 else _larger_words(chart_spec(chart), words)
    config = _CONFIG if words == 1.0 else _larger_words(_merged(_CONFIG, _VEGA_SIZES), words)
    text = drawn_aside("vl_convert", "vegalite_to_svg", vl_spec=spec, vl_version=_VEGA_LITE, config=config).decode()
    text = _NUMBERS.sub(lambda found: found[1] + _LONG.sub(r"\1", found[2]), text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)


_VEGA_SIZES = {  # of Vega's words where a chart names none, px
    "axis": {"labelFontSize": 10, "titleFontSize": 11}, "legend": {"labelFontSize": 10, "titleFontSize": 11},
    "header": {"labelFontSize": 10, "titleFontSize": 11}, "title": {"fontSize": 13, "subtitleFontSize": 11},
    "text": {"fontSize": 11},
}  # fmt: skip


def _merged(one: dict[str, Any], other: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {**one, **{name: {**one.get(name, {}), **values} for name, values in other.items()}}


def _larger_words(part: Any, times: float) -> Any:
    """A specification, or a part of one, with every size of words that many times, and its rows higher."""
    if isinstance(part, list):
        return [_larger_words(one, times) for one in part]
    if not isinstance(part, dict):
        return part
    found = {}
    for key, value in part.items():
        if key in ("data", "datasets"):
            found[key] = value
        elif key.lower().endswith("fontsize") and isinstance(value, int | float):
            found[key] = value * times
        elif key == "height" and isinstance(value, dict) and isinstance(value.get("step"), int | float):
            found[key] = {**value, "step": value["step"] * max(1.0, 0.75 * times)}
        else:
            found[key] = _larger_words(value, times)
    return found


def chart_table(chart: Any) -> pd.DataFrame:
    """The numbers that a chart draws: its largest set of data."""
    import pandas as pd

    found = list(chart_spec(chart).get("datasets", {}).values())
    return pd.DataFrame(max(found, key=len, default=[]))
