"""The paper's studies run in a browser: figures with verdicts, a stop, files, and a second study laid over."""

from __future__ import annotations

import json
import zipfile

from browser import idle, soon

SMALL = "count=20&draws=50&figures=2b,14,16,21,tables"


def opened(page, query: str) -> None:
    page.goto(f"{page.address}/study?{query}")
    page.get_by_role("heading", name="Paper studies").wait_for(timeout=60_000)
    run, report = page.get_by_role("button", name="Run", exact=True), page.get_by_role("button", name="Report")
    run.or_(page.get_by_role("button", name="Run all")).or_(report).first.wait_for(timeout=90_000)
    idle(page)


def run(page, query: str) -> None:
    opened(page, query)
    page.get_by_role("button", name="Run", exact=True).or_(page.get_by_role("button", name="Run all")).first.click()
    page.get_by_role("button", name="Report").wait_for(timeout=180_000)
    idle(page)


def test_a_run_shows_figures_with_verdicts_and_is_found_again(page):
    run(page, SMALL)
    for name in ("Fig. 2b. Heads read", "Fig. 14. When", "Fig. 16. Memory", "Fig. 21. Words", "Table 6. Words"):
        page.get_by_role("heading", name=name).wait_for(timeout=60_000)
    assert page.get_by_text("Through W_O heads share words").count() == 1
    assert page.get_by_text("The paper:").count() >= 5
    assert page.locator("[data-testid=stVegaLiteChart]").count() >= 6
    assert page.get_by_text("20 prompts").count() >= 1 and page.errors == []
    opened(page, SMALL)
    assert page.get_by_role("button", name="Run", exact=True).count() == 0, "the run is found by its address"
    page.get_by_role("link", name="Fig. 21").click()
    assert soon(lambda: "#fig-21" in page.url) and page.get_by_role("heading", name="Fig. 21. Words").is_visible()


def test_a_figure_opened_while_the_run_goes_on_is_drawn_and_a_stop_keeps_what_is_done(page):
    opened(page, "count=all&draws=50&figures=2b,3,5,14,16,17,18,19,20")
    page.get_by_role("button", name="Run", exact=True).or_(page.get_by_role("button", name="Run all")).first.click()
    page.get_by_role("button", name="Stop, and keep what is done").wait_for(timeout=60_000)
    assert page.locator("[data-testid=stVegaLiteChart]:visible").count() == 0
    page.get_by_text("Fig. 2b", exact=True).last.click()
    page.get_by_role("heading", name="Fig. 2b. Heads read").wait_for(timeout=120_000)
    assert page.get_by_role("button", name="Stop, and keep what is done").count() == 1, "still running"
    assert page.locator("[data-testid=stProgress]").count() == 1
    page.get_by_role("button", name="Stop, and keep what is done").click()
    page.get_by_text("the figures are of these").wait_for(timeout=60_000)
    page.get_by_role("button", name="Report").wait_for(timeout=60_000)
    assert page.errors == []


def test_the_report_and_the_tables_are_files(page, tmp_path):
    opened(page, SMALL)
    with page.expect_download(timeout=90_000) as found:
        page.get_by_role("button", name="Report").click()
    text = found.value.path().read_text()
    assert 'id="fig-2b"' in text and "<script" not in text
    with page.expect_download(timeout=90_000) as found:
        page.get_by_role("button", name="Tables").click()
    names = set(zipfile.ZipFile(found.value.path()).namelist())
    assert {"study.json", "figure-2b.csv", "figure-16.json", "figure-tables-1.csv"} <= names


def test_another_run_and_a_file_are_laid_over(page, tmp_path):
    run(page, "set=names&count=20&draws=50&figures=2b")
    page.get_by_role("combobox", name="Compare with").click()
    page.get_by_role("option", name="visit-mini, facts (20 of 244)").first.click()
    page.get_by_text("Dashed: visit-mini, facts").wait_for(timeout=60_000)
    saved = {"meta": {"model": "somebody's", "prompt_set": {"name": "<b>x</b>"}}, "tables": {"2b": []}}
    row = {"figure": "2b", "series": "final", "group": "all", "measure": "intersection", "layer": 0, "head": None,
           "rank": None, "mean": 0.5, "low": 0.4, "high": 0.6, "prompts": 9}  # fmt: skip
    saved["tables"]["2b"] = [row, row | {"layer": 1}]
    (tmp_path / "study.json").write_text(json.dumps(saved))
    (tmp_path / "bad.json").write_text("{")
    page.get_by_role("button", name="Or a file").click()
    page.locator("input[type=file]").set_input_files(tmp_path / "bad.json")
    page.get_by_text("This is no saved study").wait_for(timeout=60_000)
    page.locator("input[type=file]").set_input_files(tmp_path / "study.json")
    page.get_by_text("This is no saved study").wait_for(state="hidden", timeout=60_000)
    page.get_by_text("Dashed: somebody's, <b>x</b>").wait_for(timeout=60_000)
    idle(page)
    with page.expect_download(timeout=90_000) as found:
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Report").click()
    assert "somebody&#39;s, &lt;b&gt;x&lt;/b&gt;" in found.value.path().read_text()
    assert page.errors == []


def test_pasted_prompts_without_targets_run(page):
    page.goto(f"{page.address}/study?set=own&draws=50&figures=2b,13,14")
    field = page.get_by_label("Prompts, one a line")
    field.wait_for(timeout=60_000)
    field.fill("The cat sat on\nThe dog ran to <b>x</b>")
    field.press("Control+Enter")
    page.get_by_role("button", name="Run", exact=True).click(timeout=60_000)
    page.get_by_role("heading", name="Fig. 2b. Heads read").wait_for(timeout=90_000)
    page.get_by_role("button", name="Report").wait_for(timeout=60_000)
    assert page.get_by_role("heading", name="Fig. 13.").count() == 0
    page.get_by_text("Not shown: Fig. 13").wait_for(timeout=60_000)
    assert page.errors == []
