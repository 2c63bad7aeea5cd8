"""The shapes of bands: SVG path texts from points in pixels, nothing else."""

from __future__ import annotations

from visit.drawing.sheet import STREAM_Y, Pill

_LANE = STREAM_Y + 24  # height of lines that run along under the stream


def curve(x1: float, y1: float, x2: float, y2: float, bend: float = 0.0) -> str:
    """A soft step from (x1, y1) to (x2, y2) that runs straight until `bend`."""
    if abs(y1 - y2) < 0.6:
        return f"M{x1:.0f} {y1:.1f}H{x2:.0f}"
    straight = f"H{bend:.0f}" if bend > x1 + 1 else ""
    middle = (max(x1, bend) + x2) / 2
    return f"M{x1:.0f} {y1:.1f}{straight}C{middle:.0f} {y1:.1f} {middle:.0f} {y2:.1f} {x2:.0f} {y2:.1f}"


def rise(x1: float, y1: float, x2: float, y2: float) -> str:
    middle = (y1 + y2) / 2
    return f"M{x1:.0f} {y1:.0f}C{x1:.0f} {middle:.0f} {x2:.0f} {middle:.0f} {x2:.0f} {y2:.0f}"


def rail_line(start: str, rail: float, y1: float, y2: float, x2: float) -> str:
    """From `start` at height y1 around a soft corner into the rail, down to y2 and right to x2."""
    if abs(y2 - y1) < 2:
        return f"{start}H{x2:.0f}"
    soft = min(8.0, abs(y2 - y1) / 2)
    return (
        f"{start}Q{rail:.0f} {y1:.0f} {rail:.0f} {y1 + soft:.0f}V{y2 - soft:.0f}"
        f"Q{rail:.0f} {y2:.0f} {rail + soft:.0f} {y2:.0f}H{x2:.0f}"
    )


def under_stream(x: float, y: float, end: float) -> str:
    """A parallel block: attention's sum runs along under the stream to the state at its end."""
    turn = end - 10
    return (
        f"M{x:.0f} {y:.0f}V{_LANE + 10:.0f}Q{x:.0f} {_LANE:.0f} {x + 10:.0f} {_LANE:.0f}H{turn - 14:.0f}"
        f"C{turn:.0f} {_LANE:.0f} {turn:.0f} {STREAM_Y + 6:.0f} {end:.0f} {STREAM_Y + 6:.0f}"
    )


def fold_attention(a: Pill) -> str:
    """In a folded block attention's sum goes up left of the state, to the bead."""
    x = a.x - 6
    return f"M{a.x:.0f} {a.cy:.0f}Q{x:.0f} {a.cy:.0f} {x:.0f} {a.cy - 8:.0f}V{STREAM_Y + 6:.0f}"


def fold_mlp(a: Pill, b: Pill) -> str:
    """In a folded block the MLP's sum goes up right of attention's, to the state."""
    x = b.right - 1
    return f"M{a.right:.0f} {a.cy:.0f}Q{x:.0f} {a.cy:.0f} {x:.0f} {a.cy - 8:.0f}V{b.bottom - 3:.0f}"
