"""Seconds until a page stands in a real browser: `python benchmarks/first_paint.py [page …]`.

Each page on a server that has served nobody (cold) and for a second visitor with an empty browser (warm). *name*: the
page's name is painted; *whole*: Streamlit has run the page to its end and the browser has drawn what it was sent. An
empty page of Streamlit on the same machine is the measure of what is not ours: its row says `(empty)`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]

from browser import browser, server  # noqa: E402

PAGES = {
    "": "start page",
    **{name: name for name in ("flow", "compare", "whatif", "trace", "memory", "layernorm", "neurons", "study")},
    "glossary": "glossary",
}
DONE = '[data-testid="stApp"][data-test-script-state="notRunning"]'
EMPTY = 'import streamlit as st\nst.title("Empty")\n'


def visit(chromium: Any, address: str) -> tuple[float, float]:
    """A visitor with a browser that has seen nothing: seconds to the page's name, and to the whole page."""
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    began = time.perf_counter()
    page.goto(address, wait_until="commit")
    page.locator("[data-testid=stMainBlockContainer] h1").first.wait_for(timeout=120_000)
    named = time.perf_counter() - began
    page.locator(DONE).wait_for(timeout=120_000)
    whole = time.perf_counter() - began
    context.close()
    return named, whole


def measure(chromium: Any, label: str, path: str, script: Path = ROOT / "streamlit_app.py") -> None:
    """Both visitors of a fresh server, as a line."""
    with tempfile.TemporaryDirectory() as cache, server(script, VISIT_CACHE=cache) as address:
        (cold, cold_whole), (warm, warm_whole) = (visit(chromium, f"{address}/{path}") for _ in range(2))
    print(f"{label:12s} {cold:9.2f} {cold_whole:9.2f} {warm:9.2f} {warm_whole:9.2f}", flush=True)


def main() -> None:
    print(f"{'seconds':12s} {'cold name':>9s} {'whole':>9s} {'warm name':>9s} {'whole':>9s}")
    with browser() as chromium, tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "empty.py"
        empty.write_text(EMPTY)
        measure(chromium, "(empty)", "", empty)
        for path, label in PAGES.items():
            if not sys.argv[1:] or label in sys.argv[1:]:
                measure(chromium, label, path)


if __name__ == "__main__":
    main()
