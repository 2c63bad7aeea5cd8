"""What a causal trace shows, in sentences: what the noise takes away, and where what is put back brings it back."""

from __future__ import annotations

from typing import Any

import pandas as pd

from visit.causal.thresholds import HALF
from visit.text.numbers import percent
from visit.text.visible import visible

WINDOWS = {"attn_out": "attention", "mlp_out": "the MLPs"}


def trace_story(table: pd.DataFrame) -> list[str]:
    """Sentences on a table of `visit.trace`: the fall, where the stream brings it back, and which windows do."""
    about = table.attrs
    clean, corrupted = about["clean"], about["corrupted"]
    subject = about["subject"]["text"]
    word = f"“{visible(about['target']['token'])}”"
    moved = f"falls from {percent(clean)} to {percent(corrupted)}"
    if corrupted > clean:
        moved = f"rises from {percent(clean)} to {percent(corrupted)}"
    elif percent(clean) == percent(corrupted):
        moved = f"stays at {percent(clean)}"
    told = [f"With “{visible(subject)}” made unreadable {word} {moved}."]
    lost = clean - corrupted
    if lost <= 0 or about["samples"] == 0 or percent(clean) == percent(corrupted):
        return told
    stream = table[table["site"] == "resid"]
    told.append(_in_the_stream(stream, about["subject"]["positions"], about["position"], lost))
    told += _in_windows(table, about, lost)
    return told


def _in_the_stream(stream: pd.DataFrame, subject: list[int], end: int, lost: float) -> str:
    """At the token of the subject that brings most back, and at the last position."""
    inside = stream[stream["pos"].isin(subject)]
    most = inside.loc[inside["effect"].idxmax()]
    place = f"“{visible(most['token'])}”"
    here, last = (stream[stream["pos"] == pos].set_index("layer") for pos in (most["pos"], end))
    back = here.index[here["effect"] >= HALF * lost].tolist()
    if back:
        told = f"Put back at {place} alone, the state after {_blocks(back)} brings at least half of that back"
        told += f" (most after block {most['layer']}, to {percent(most['prob'])})" if len(back) > 1 else ""
    else:
        told = f"No single state of it brings half of that back: the most, {percent(most['prob'])}, is that at {place} "
        told += f"after block {most['layer']}"
    if most["pos"] == end:
        return f"{told}."
    weak = last.index[last["effect"] < HALF * lost].tolist()
    start = max(weak, default=-1) + 1  # there is one, for the last block brings everything back
    return f"{told}; at the last position it comes back from block {start} on."


def _blocks(layers: list[int]) -> str:
    """ "block 3", "any of the blocks 0 to 12", "12 of the blocks 0 to 20"."""
    if len(layers) == 1:
        return f"block {layers[0]}"
    first, last = layers[0], layers[-1]
    whole = last - first + 1 == len(layers)
    return f"{'any' if whole else len(layers)} of the blocks {first} to {last}"


def _in_windows(table: pd.DataFrame, about: dict[str, object], lost: float) -> list[str]:
    """Of attention and of the MLPs: the window that brings most back."""
    parts = []
    for site, name in WINDOWS.items():
        rows = table[table["site"] == site]
        best = rows.loc[rows["effect"].idxmax()]
        if best["effect"] < 0.05 * lost:
            parts.append(f"no window of {name} brings anything back")
            continue
        blocks = f"{best['first']} to {best['last']}" if best["last"] > best["first"] else f"{best['first']}"
        place = f"“{visible(best['token'])}” (position {best['pos']})"
        parts.append(f"of {name} blocks {blocks} at {place} bring most back, to {percent(best['prob'])}")
    return [f"In windows of {about['window']} blocks: {'; '.join(parts)}."]


def ledger_in_words(ledger: dict[str, Any]) -> str:
    """ "All four checks hold: largest relative error 7e-07 (allowed 1e-04)." """
    size = f"largest relative error {ledger['max_rel_error']:.0e} (allowed {ledger['tolerance']:.0e})"
    failed = [one["name"].partition(":")[0] for one in ledger["checks"] if not one["holds"]]
    if failed:
        return f"A check FAILS ({'; '.join(failed)}): {size}. Do not trust these numbers."
    return f"All four checks hold: {size}."
