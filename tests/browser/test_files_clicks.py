"""Dialogs that make files: what only a browser shows of them."""

from __future__ import annotations

import json

from browser import idle


def test_code_leads_to_the_notebook_and_escape_closes_a_dialog_after_a_download(page, address, tmp_path):
    page.goto(f"{address}/flow")
    idle(page)
    page.get_by_role("button", name="Code").click()
    page.get_by_role("button", name="Notebook").click()
    button = page.get_by_role("button", name="Download the notebook")
    button.wait_for(timeout=30_000)
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
        page.get_by_role("dialog").wait_for(timeout=30_000)
        idle(page)
