"""Every number that people read, as text: one rule per kind, wherever it is shown.

A number is never rounded to a certainty: 100 % and 0 % stand for what is exactly that. What lies closer is "over
99.9 %" and "under 0.1 %", "> 99.9 %" and "< 0.1 %" where space is short. Counts and ranks have commas (`f"{count:,}"`).
A number in a sentence has a true minus sign, one in a table the hyphen that other programs can read. Missing is –.
"""

from __future__ import annotations

MISSING = "–"


def percent(p: float | None, narrow: bool = False, fine: bool = False) -> str:
    """A probability or a share: `4.1 %`, `62 %`, `99.7 %`; empty where there is none.

    One digit behind the point below 10 % and from 99 % on. `narrow`: `>` and `<` instead of words. `fine`: for a table
    or a chart of small ones; the ends are 0.001 % and 99.999 %, and near them all digits count.
    """
    if p is None or p != p:
        return ""
    end = 1e-5 if fine else 1e-3
    if p == 0 or p >= 1:
        return "0 %" if p == 0 else "100 %"
    if p < end:
        return f"{'<' if narrow else 'under'} {100 * end:g} %"
    if p > 1 - end:
        return f"{'>' if narrow else 'over'} {100 * (1 - end):g} %"
    if fine and min(p, 1 - p) < 1e-3:
        return f"{100 * p:.3f} %"
    return f"{100 * p:.{1 if p < 0.0995 or p >= 0.99 else 0}f} %"


def ratio(value: float) -> str:
    """A share that may be negative or above 1, as of an effect: `83 %`, `−4 %`, `131 %`."""
    return MISSING if value != value else f"{'−' if value < -0.005 else ''}{abs(100 * value):.0f} %"


def short(value: float) -> str:
    """A number in a sentence: one digit behind the point, two digits below 1: `12.3`, `0.25`, `−0.043`, `2·10^-5`."""
    if value != value:
        return MISSING
    size = abs(value)
    text = f"{size:,.1f}" if size >= 0.995 else f"{size:.2f}" if size >= 0.095 else f"{size:.2g}"
    digits, _, power = text.partition("e")
    return f"{'−' if value < 0 else ''}{digits}{f'·10^{int(power)}' if power else ''}"


def signed(value: float) -> str:
    """`short` with its sign, for what adds or moves: `+12.3`, `−0.043`."""
    return short(value) if value < 0 or value != value else f"+{short(value)}"


def band(low: float, high: float) -> str:
    """The ends of a 95 % band: `[0.15, 0.33]`."""
    return f"[{short(low)}, {short(high)}]"


def bits(value: float) -> str:
    """An entropy or a divergence: `0.34 bits`."""
    return f"{value:.2f} bits" if value == value else MISSING


def number(value: float | None, sign: bool = False) -> str:
    """A cell of a table, or a tooltip beside a chart: three digits behind the point, three digits where it is tiny."""
    if value is None or value != value:
        return MISSING
    tiny = 0 < abs(value) < 1e-3
    return f"{value:{'+' if sign else ''}{'.3g' if tiny or abs(value) >= 1e5 else '.3f'}}"


def size_text(count: float) -> str:
    """Bytes in words: `1.4 GB`, `30.4 MB`."""
    if count >= 0.95e9:
        return f"{count / 1e9:,.1f} GB"
    return f"{count / 1e6:,.{0 if count >= 1e7 else 1}f} MB"


def duration(seconds: float) -> str:
    """A length of time as one says it: `12 s`, `3 min`, `1.5 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds)):,} s"
    return f"{round(seconds / 60):,} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
