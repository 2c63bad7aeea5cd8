"""How long the flow graph takes: layout and SVG in Python, first paint and hover in headless Chromium.

Run: python benchmarks/drawing.py. Times are medians of five, in milliseconds; limits in brackets are the project's.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]

from graphs import make_graph  # noqa: E402

from visit.drawing.draw import component_source, draw, flow_data  # noqa: E402
from visit.files.flow_page import flow_html  # noqa: E402
from visit.graph.flowgraph import FlowGraph  # noqa: E402

CASES: dict[str, tuple[dict[str, Any], str, int]] = {
    "one block at words": ({"heads": 12, "neurons": 12}, "words", 100),
    "twelve blocks at states": ({"layers": tuple(range(12)), "heads": 12}, "states", 100),
    "twelve blocks at everything": (
        {"layers": tuple(range(12)), "heads": 12, "neurons": 24, "attn_neurons": 24},
        "everything",
        400,
    ),
}
# from the call with new data to the frame after the one in which the drawing was laid out and painted
PAINT = """async (data) => {
  const start = performance.now();
  window.flow({ data, parentElement: document.body });
  document.querySelector(".frame").getBoundingClientRect();
  await new Promise((done) => requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = done;
    channel.port2.postMessage(0);
  }));
  return performance.now() - start;
}"""
HOVER = """async (step) => {
  const groups = [...document.querySelectorAll(".nodes .n")];
  const times = [];
  for (let i = 0; i < groups.length; i += step) {
    const start = performance.now();
    groups[i].dispatchEvent(new PointerEvent("pointermove", { bubbles: true, pointerType: "mouse", clientX: i + 1 }));
    await new Promise((done) => requestAnimationFrame(() => {
      const channel = new MessageChannel();
      channel.port1.onmessage = done;
      channel.port2.postMessage(0);
    }));
    times.push(performance.now() - start);
  }
  return times;
}"""
WORK = """(step) => {
  const groups = [...document.querySelectorAll(".nodes .n")], times = [];
  for (let i = 0; i < groups.length; i += step) {
    const start = performance.now();
    groups[i].dispatchEvent(new PointerEvent("pointermove", { bubbles: true, pointerType: "mouse", clientX: i + 1 }));
    times.push(performance.now() - start);
  }
  return times;
}"""


def timed(work: Any) -> float:
    """Median of five runs in milliseconds."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - start))
    return median(times)


def in_python(name: str) -> dict[str, Any]:
    """Draw one case in Python; returns its data for the browser."""
    options, level, _ = CASES[name]
    graph = make_graph(**options)
    data = flow_data(graph, level)
    nodes = len(data["nodes"])
    svg, all_data = timed(lambda: draw(graph, level)), timed(lambda: flow_data(graph, level))
    sent = len(json.dumps(data, ensure_ascii=False).encode())
    page = len(flow_html(graph, level).encode())
    print(f"{name}: {nodes} of {len(graph.nodes)} nodes, {len(data['links'])} links")
    redraw = 100 * fresh(graph, level) / through_tables(graph, level)
    rate, share = 1000 * svg / len(graph.nodes), 2000 * sent / nodes / 1e6
    print(f"  layout + SVG {svg:6.1f} ms = {rate:5.1f} per 1,000 nodes [50]; with inspector {all_data:.1f} ms")
    print(f"  a redraw from records takes {redraw:.0f} % of one that reads the graph's two tables, as it once did [60]")
    print(f"  sent {sent / 1e6:.2f} MB = {share:.2f} MB per 2,000 nodes [2]; page {page / 1e6:.2f} MB")
    return data


def fresh(graph: FlowGraph, level: Any) -> float:
    """A redraw of a graph that was just made: nothing about it is known but its records."""
    return timed(lambda: flow_data(FlowGraph(graph.by_id, graph.links, graph.meta), level))


def through_tables(graph: FlowGraph, level: Any) -> float:
    """The same where the graph is its two tables: rows become tables, and these are read for drawing and inspector."""

    def work() -> None:
        made = FlowGraph(graph.by_id, graph.links, graph.meta)
        nodes, edges = made.nodes, made.edges
        FlowGraph.of_tables(nodes, edges, graph.meta)
        flow_data(FlowGraph.of_tables(nodes, edges, graph.meta), level)

    return timed(work)


def in_browser(page: Any, name: str, data: dict[str, Any]) -> None:
    """Paint and hover one case; each paint starts from an empty page."""
    source = component_source()
    script = source["js"].replace("export default function flow", "window.flow = flow;\nfunction flow")
    paints = []
    for _ in range(5):
        page.set_content(f"<style>{source['css']}</style>{source['html']}<script type='module'>{script}</script>")
        page.wait_for_function("() => Boolean(window.flow)")
        paints.append(page.evaluate(PAINT, data))
    step = max(1, len(data["nodes"]) // 25)
    frames, work = page.evaluate(HOVER, step), page.evaluate(WORK, step)
    print(f"  data to paint {median(paints):6.1f} ms [{CASES[name][2]}]")
    script = f"script alone {median(work):.1f}, worst {max(work):.1f}"
    print(f"  hover to paint {median(frames):6.1f} ms, worst {max(frames):.1f} [30]; {script}")


def main() -> None:
    from playwright.sync_api import sync_playwright

    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        for name in CASES:
            in_browser(page, name, in_python(name))
        browser.close()


if __name__ == "__main__":
    main()
