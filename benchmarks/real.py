"""How long a real model lets its user wait: `python benchmarks/real.py [--model PATH] [--only NAMES]`.

Seconds, and ratios to a plain forward pass of the same prompt measured beside them. First the products in this process,
each the shortest of three; then pages through a real server and headless Chromium, from the key press until the script
has ended and the page has changed for the last time.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]

PROMPT = "When Mary and John went to the store, John gave a drink to"
OTHERS = [
    "When Paul and Lucy went to the park, Lucy gave a flower to",
    "When Anna and Mark went to the shop, Anna gave a book to",
    "When Kate and Bill went to the bank, Bill gave a ticket to",
]  # of 14 tokens each
UNFOLDED = (3, 11, 17)  # blocks that no page opens by itself
REPEATS = 3


def shortest(call: Callable[[], object], repeats: int = REPEATS) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


class Table:
    """Lines of one report: a name, seconds, the ratio to a plain forward pass measured beside them, what is allowed."""

    def __init__(self, name: str) -> None:
        import visit
        from visit.activations.forward import plain_logits
        from visit.models.model import tokenize

        self.model = visit.load_model(name)
        ids = tokenize(self.model, PROMPT)
        self.forward = lambda: plain_logits(self.model, ids)
        self.forward()
        print(f"{'plain forward pass':44s} {shortest(self.forward):7.3f} s", flush=True)

    def line(self, name: str, seconds: float, allowed: float | None = None) -> None:
        limit = "" if allowed is None else f"   (allowed {allowed:g} s on two idle cores)"
        print(f"{name:44s} {seconds:7.3f} s   {seconds / shortest(self.forward):6.1f} ×{limit}", flush=True)


# ---- products, in this process ---------------------------------------------------------------------------------------


def products(table: Table) -> None:
    """Capture, graphs and map of one prompt."""
    import visit
    from visit.analyses.divergence import part
    from visit.analyses.overview import lens_map, predictions
    from visit.analyses.token_alignment import pair
    from visit.graph.build import build_folded_graph
    from visit.narrate.flow import story

    model = table.model
    long_capture(model, min(600, model.max_tokens))
    table.line("capture", shortest(lambda: visit.capture(model, PROMPT)))
    acts, other = visit.capture(model, PROMPT), visit.capture(model, OTHERS[0])
    pos, target, block = acts.index(-1), int(acts.logits[-1].argmax()), 2 * model.n_layers // 3
    drawn = build_folded_graph(model, acts, opened=[block])
    table.line("predictions", shortest(lambda: predictions(model, acts)))
    table.line("reading in sentences", shortest(lambda: story(model, acts, pos, target)))
    table.line(f"lens map, {model.n_layers + 1} × {len(acts.tokens)}", shortest(lambda: lens_map(model, acts, target)))
    table.line("graph of one block", shortest(lambda: visit.build_flow_graph(model, acts, layers=[block])))
    table.line(
        "graph as it is drawn, one block open", shortest(lambda: build_folded_graph(model, acts, opened=[block]))
    )
    both = {"opened": [0, block], "known": drawn.by_id.values()}
    table.line("… one more block unfolded", shortest(lambda: build_folded_graph(model, acts, **both)))
    table.line("whole graph", shortest(lambda: visit.build_flow_graph(model, acts)))
    pairing = pair(model, acts, model, other)
    table.line("where two runs part", shortest(lambda: part(model, acts, model, other, pairing)))
    memory_products(model, acts, table)
    neuron_products(model, acts, table)


def memory_products(model: Any, acts: Any, table: Table) -> None:
    """What the memory page computes when it opens, and what it leaves until somebody asks."""
    from visit.analyses.attention_memory import head_memory, head_summary, value_life
    from visit.analyses.heads import head_map
    from visit.analyses.overlap import alignment_scores
    from visit.narrate.memory import head_graph

    layer, head = 2 * model.n_layers // 3, 1
    heads = f"{model.n_layers * model.n_heads} heads"
    table.line(f"memory: numbers of {heads}", shortest(lambda: head_map(model, acts, words=False)))
    table.line("memory: one head as a whole", shortest(lambda: head_summary(model, acts, layer, head)))
    table.line("memory: one head, every source", shortest(lambda: head_memory(model, acts, layer, head)))
    table.line("memory: one head as a drawing", shortest(lambda: head_graph(model, acts, layer, head)))
    table.line(f"memory, on demand: words of {heads}", shortest(lambda: head_map(model, acts)))
    table.line("memory, on demand: a value's life", shortest(lambda: value_life(model, acts, 1)))
    table.line("memory, on demand: Figures 2, 3 and 5", shortest(lambda: alignment_scores(model, acts)))


def neuron_products(model: Any, acts: Any, table: Table) -> None:
    """What the neuron page computes when it opens; the whole index is said by a chunk of it."""
    from visit.analyses.neurons import active_neurons, neuron_card
    from visit.lenses.weights import forecast_seconds, rows_in_all

    last = model.n_layers - 1
    table.line("neurons: the first table, 30 of a layer", shortest(lambda: active_neurons(model, acts, last, top=30)))
    table.line("neurons: a card", shortest(lambda: neuron_card(model, None, last, 1)))
    forecast_seconds(model)
    table.line(f"neurons, on demand: {rows_in_all(model):,} rows", forecast_seconds(model))


def long_capture(model: Any, tokens: int = 600) -> None:
    """Time and memory of a long prompt's record beside the plain eager forward pass, in turns."""
    import torch

    from visit.activations.forward import capture, plain_logits
    from visit.cache import weight

    ids = torch.randint(1000, (tokens,), generator=torch.Generator().manual_seed(0)).tolist()
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak of loading is not the record's
    acts = capture(model, ids)
    peak, record = _resident("VmHWM") - before, weight(acts) / 2**20
    del acts
    times: dict[str, list[float]] = {"plain": [], "capture": []}
    for _ in range(REPEATS):
        times["plain"].append(shortest(lambda: plain_logits(model, ids), 1))
        times["capture"].append(shortest(lambda: capture(model, ids), 1))
    plain, ours = (min(found) for found in times.values())
    print(
        f"capture of {tokens} tokens: {ours:.2f} s, {ours / plain:.2f} × the plain eager forward pass (allowed 1.5); "
        f"record {record:.0f} MB, peak {peak / record:.2f} × it (allowed 2)",
        flush=True,
    )


def _resident(which: str) -> float:
    """This process's memory, MB: VmRSS now, VmHWM the largest so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) / 1024


# ---- pages, through a server and a browser ---------------------------------------------------------------------------

_WATCH = """() => {
  window.last = performance.now();
  new MutationObserver((list) => {
    const at = (m) => m.target.closest ? m.target : m.target.parentElement;
    if (list.some((m) => !at(m)?.closest('[data-testid=stStatusWidget]'))) window.last = performance.now();
  }).observe(document.body, { subtree: true, childList: true, attributes: true, characterData: true });
  window.ends = [];
  new MutationObserver(() => {
    if (document.querySelector('.stApp').dataset.testScriptState === 'notRunning') window.ends.push(performance.now());
  }).observe(document.querySelector('.stApp'), { attributes: true, attributeFilter: ['data-test-script-state'] });
}"""
_QUIET = """(begun) => {
  const state = document.querySelector('.stApp').dataset.testScriptState;
  return window.last > begun && state === 'notRunning' && performance.now() - window.last > 700
    && window.last - begun;
}"""


def settled(page: Any, act: Callable[[], None]) -> float:
    """Seconds from before `act` until the page has changed for the last time (quiet for 0.7 s, no script running)."""
    begun = page.evaluate("() => performance.now()")
    act()
    return page.wait_for_function(_QUIET, arg=begun, timeout=180_000).json_value() / 1000


def drawn(page: Any, act: Callable[[], None]) -> tuple[float, float]:
    """Seconds until the page's run has ended for the first time, and until what is measured beside it stands there."""
    begun = page.evaluate("() => performance.now()")
    settled(page, act)
    page.get_by_text("Measuring what each head does").wait_for(state="hidden", timeout=180_000)
    whole = page.evaluate("() => Math.max(window.last, window.ends.at(-1))")
    return page.evaluate("(begun) => window.ends.find((end) => end > begun) - begun", begun) / 1000, (
        whole - begun
    ) / 1000


def opened(
    chromium: Any, address: str, name: str, path: str, sign: str = ".nodes .n", **query: str
) -> tuple[Any, float]:
    """A tab on one page of the app, and how long it took to settle. `sign`: what its end shows."""
    page = chromium.new_page(viewport={"width": 1440, "height": 1300})
    started = time.perf_counter()
    page.goto(f"{address}/{path}?{urlencode({'model': name, **query})}")
    page.evaluate(_WATCH)
    page.locator(sign).first.wait_for(timeout=180_000)
    page.wait_for_function(_QUIET, arg=0, timeout=180_000)
    return page, time.perf_counter() - started - 0.7


def type_prompt(page: Any, label: str, text: str) -> None:
    field = page.get_by_label(label, exact=True)
    field.fill(text)
    field.press("Enter")


def flow_page(chromium: Any, address: str, name: str, table: Table) -> None:
    page, first = opened(chromium, address, name, "flow", prompt=PROMPT)
    table.line("flow page: the first visit", first)
    both = [drawn(page, lambda text=text: type_prompt(page, "Prompt", text)) for text in OTHERS]
    table.line("flow page: changed prompt, drawn", sorted(first for first, _ in both)[1], 1.2)
    table.line("… and what happens without each head, measured", sorted(last for _, last in both)[1])
    blocks = [page.locator(f".names [data-layer='{n}'], [data-layer='{n}']").first for n in UNFOLDED]
    times = []
    for block in blocks:
        block.scroll_into_view_if_needed()
        page.wait_for_timeout(300)
        times.append(settled(page, block.click))
    table.line("flow page: a block unfolded", sorted(times)[1], 0.3)
    page.close()


def compare_page(chromium: Any, address: str, name: str, table: Table) -> None:
    page, first = opened(chromium, address, name, "compare", prompt=PROMPT, prompt_b=OTHERS[0])
    table.line("Compare: the first visit", first)
    times = [settled(page, lambda text=text: type_prompt(page, "Prompt B", text)) for text in OTHERS[1:]]
    table.line("Compare: changed prompt B, settled", min(times), 2.5)
    page.close()


def memory_page(chromium: Any, address: str, name: str, table: Table) -> None:
    page, first = opened(chromium, address, name, "memory", prompt=PROMPT)
    table.line("memory page: the first visit", first)
    times = [settled(page, lambda text=text: type_prompt(page, "Prompt", text)) for text in OTHERS]
    table.line("memory page: changed prompt, settled", sorted(times)[1], 1.5)
    page.close()


def neuron_page(chromium: Any, address: str, name: str, table: Table) -> None:
    page, first = opened(chromium, address, name, "neurons", "[data-testid=stDataFrame]", prompt=PROMPT)
    table.line("neuron page: the first visit", first)
    times = [settled(page, lambda text=text: type_prompt(page, "Prompt", text)) for text in OTHERS]
    table.line("neuron page: changed prompt, settled", sorted(times)[1], 1.5)
    page.close()


PAGES = {"flow": flow_page, "compare": compare_page, "memory": memory_page, "neurons": neuron_page}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2", help="a listed model, a folder, or a name of the hub")
    parser.add_argument("--only", default=",".join(["products", *PAGES]), help="some of them")
    chosen = parser.parse_args()
    wanted = chosen.only.split(",")
    table = Table(chosen.model)
    if "products" in wanted:
        products(table)
    if not set(wanted) & set(PAGES):
        return
    from browser import browser, server

    with server(VISIT_OFFLINE="1") as address, browser() as chromium:
        for page in (PAGES[name] for name in wanted if name in PAGES):
            page(chromium, address, chosen.model, table)


if __name__ == "__main__":
    main()
