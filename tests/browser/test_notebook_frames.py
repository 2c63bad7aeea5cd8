"""Results of a real Jupyter kernel, in a browser without a network: in a frame that is sandboxed, they can be used."""

from __future__ import annotations

from html import escape

import pytest
from browser import ROOT

PROMPTS = "The capital of Japan is the city of", "The capital of France is the city of"
BEGINNING = f"""import visit
model = visit.load_model("visit-mini")
a, b = (visit.capture(model, text) for text in {PROMPTS!r})
graph, other = (visit.build_flow_graph(model, acts, layers=[4]) for acts in (a, b))"""
RESULTS = {
    "graph": "graph", "comparison": "visit.compare(graph, other)", "effects": "visit.effects(model, a)",
    "lens map": "visit.lens_map(model, a)", "head memory": "visit.head_memory(model, a, 4, 1)",
}  # fmt: skip
CHOSEN = "e => e.querySelector('[tabindex=\"0\"]').closest('td, th').cellIndex"


@pytest.mark.slow
def test_results_of_a_jupyter_kernel_can_be_used_in_a_sandboxed_frame(chromium):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(one) for one in (BEGINNING, *RESULTS.values())])
    where = {"metadata": {"path": str(ROOT)}}
    done = nbclient.NotebookClient(made, timeout=240, kernel_name="python3", resources=where).execute()
    shown = [out["data"]["text/html"] for cell in done.cells[1:] for out in cell.outputs]
    assert len(shown) == len(RESULTS)
    context = chromium.new_context(viewport={"width": 1440, "height": 1000}, offline=True)
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: wrong.append(request.url))
    for name, html in zip(RESULTS, shown, strict=True):
        page.set_content(f'<iframe sandbox="allow-scripts" width="1300" height="900" srcdoc="{escape(html)}"></iframe>')
        inner = page.frame_locator("iframe").frame_locator("iframe")
        if name in ("graph", "comparison"):
            inner.locator(".visit .nodes .n").first.dispatch_event("click")
            inner.locator(".visit .inspector").first.wait_for(timeout=60_000)
            continue
        table = inner.locator("table").first
        before = table.evaluate(CHOSEN)
        table.locator("[tabindex='0']").first.focus()
        for key in ("ArrowRight", "ArrowLeft"):  # it may stand at an end
            page.keyboard.press(key)
            if table.evaluate(CHOSEN) != before:
                break
        else:
            pytest.fail(f"{name} does not answer to keys")
    assert not [one for one in wrong if not one.startswith(("about:", "data:"))], wrong
    context.close()
