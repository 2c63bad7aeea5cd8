"""Seconds until the flow graph stands on a server that has served nobody: `python benchmarks/first_picture.py [TIMES]`.

In a real browser, each on a fresh server: an empty page of Streamlit, which is what is not ours; the opening question
of visit-mini, which a shipped recording answers, and when its model has taken over; a text that no recording answers,
whose graph waits for torch and the model. With SmolLM2 in the cache folder, the same of it. The least of TIMES (3).
The browser asks as soon as the server answers, and the server still imports ahead then (visit/app/ahead.py): what that
spares a visitor is no cheat on the one who starts the server, whose seconds from the start of its process stand behind.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]

from browser import browser, server  # noqa: E402

from visit.models import wheels  # noqa: E402
from visit.models.catalog import REAL  # noqa: E402

EMPTY = 'import streamlit as st\nst.title("Empty")\n'
OTHER = "prompt=The+capital+of+Italy+is+the+city+of"
GRAPH, THERE = ".nodes .n", "text=Examine this model"


def waited(chromium: Any, script: Path, path: str, *shown: str, **env: str) -> list[float]:
    """Seconds until each of these stands, for the first visitor of a server; then those before the server answered."""
    started = time.perf_counter()
    with server(script, **env) as address:
        answered = time.perf_counter() - started
        context = chromium.new_context(viewport={"width": 1440, "height": 900})
        page, found = context.new_page(), []
        began = time.perf_counter()
        page.goto(f"{address}/{path}", wait_until="commit")
        for one in shown:
            page.locator(one).first.wait_for(timeout=180_000)
            found.append(time.perf_counter() - began)
        context.close()
    return [*found, answered]


def main(times: int) -> None:
    app = ROOT / "streamlit_app.py"
    with browser() as chromium, tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "empty.py"
        empty.write_text(EMPTY)

        def least(script: Path, path: str, *shown: str, **env: str) -> list[float]:
            runs = [waited(chromium, script, path, *shown, **env) for _ in range(times)]
            return [min(one) for one in zip(*runs, strict=True)]

        base, up = least(empty, "", "h1")
        print(f"{'an empty page':44s} {base:6.2f} s {'':21s}   {up + base:6.2f} s from the start", flush=True)
        places = [("visit-mini", "", folder)]
        if wheels.find(REAL) is not None:
            places.append((REAL, f"model={REAL}&", os.environ.get("VISIT_CACHE", "")))
        for name, model, cache in places:
            env = {"VISIT_CACHE": cache} if cache else {}
            graph, there, up = least(app, f"flow?{model}", GRAPH, THERE, **env)
            other = least(app, f"flow?{model}{OTHER}", GRAPH, **env)[0]
            for what, seconds in (("its graph, from the recording", graph), ("its model has taken over", there),
                                  ("a graph that needs the model", other)):  # fmt: skip
                print(f"{name + ': ' + what:44s} {seconds:6.2f} s   {seconds / base:4.1f} × an empty page"
                      f"   {up + seconds:6.2f} s from the start", flush=True)  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 3)
