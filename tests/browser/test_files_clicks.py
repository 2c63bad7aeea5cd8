"""Dialogs that make files: what only a browser shows of them."""

from __future__ import annotations

import base64
import json

from browser import ROOT, idle

DROPPED = """([name, text]) => {
  const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0)), found = new DataTransfer();
  found.items.add(new File([bytes], name));
  return found;
}"""


def drop(page, name: str, content: bytes) -> bool:
    """Drop a file on the page's text; whether the page took it from the browser, which else would leave for it."""
    held = page.evaluate_handle(DROPPED, [name, base64.b64encode(content).decode()])
    return held.evaluate("""(files) => ['dragover', 'drop'].every((kind) => !document.querySelector(
        '[data-testid=stMain] h1, [data-testid=stMain] h2').dispatchEvent(
            new DragEvent(kind, { bubbles: true, cancelable: true, composed: true, dataTransfer: files })))""")


def test_code_leads_to_the_notebook_and_escape_closes_a_dialog_after_a_download(page, address, tmp_path):
    page.goto(f"{address}/flow")
    idle(page)
    page.get_by_role("button", name="Code").click()
    page.get_by_role("button", name="Notebook").click()
    button = page.get_by_role("button", name="Download the notebook")
    button.wait_for(timeout=60_000)
    idle(page)
    assert page.get_by_text("On the command line").count() == 0, "the popover is in the dialog's way"
    with page.expect_download() as waited:
        button.click()
    waited.value.save_as(tmp_path / "page.ipynb")
    cells = json.loads((tmp_path / "page.ipynb").read_text(encoding="utf-8"))["cells"]
    kinds = {kind for cell in cells for output in cell.get("outputs", ()) for kind in output["data"]}
    assert {"image/png", "text/html", "text/plain"} <= kinds
    for _ in range(2):
        page.evaluate("document.activeElement.blur()")  # as where a button that makes a file is disabled
        page.keyboard.press("Escape")
        page.get_by_role("dialog").wait_for(state="detached", timeout=60_000)
        page.get_by_role("button", name="Figures").click()
        page.get_by_role("dialog").wait_for(timeout=60_000)
        idle(page)


def test_a_recording_that_is_dropped_anywhere_on_a_page_is_opened(page, address):
    page.goto(f"{address}/glossary")
    idle(page)
    assert drop(page, "notes.txt", b"no recording"), "the browser would have left the page"
    assert drop(page, "bad.visit", b"no recording")
    page.get_by_text("it is no zip file as VISIT writes it").wait_for(timeout=60_000)
    assert page.get_by_role("dialog").count() == 1
    assert drop(page, "run.visit", (ROOT / "visit/data/recordings/opening.visit").read_bytes())
    page.wait_for_url("**/flow?**recording=**", timeout=60_000)
    page.locator(".nodes .n").first.wait_for(timeout=60_000)
    assert page.get_by_role("dialog").count() == 0
