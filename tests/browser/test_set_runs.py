"""Runs over a set of prompts: started, found again, stopped, and clicked on. (AppTest loses what is pressed here.)"""

from __future__ import annotations

import csv

from browser import ROOT, idle, server


def opened(page, where: str) -> None:
    page.goto(f"{page.address}/{where}")
    page.get_by_text("Over a set of prompts").wait_for(timeout=60_000)
    idle(page)
    idle(page)  # what is counted beside the page, too


def test_a_set_through_the_norms_and_its_run_is_found_again(page):
    opened(page, "layernorm?set=plain")
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("with the paper, in which a norm filters function words").wait_for(timeout=60_000)
    page.get_by_text("70 prompts, last token").wait_for(timeout=60_000)
    opened(page, "neurons")
    opened(page, "layernorm?set=plain")
    page.get_by_text("70 prompts, last token").wait_for(timeout=60_000)
    assert page.get_by_role("button", name="Run", exact=True).count() == 0 and page.errors == []


def test_only_answered_prompts_through_the_neurons(page):
    opened(page, "neurons?set=plain&answered=1&neuron=L7.mlp_value377")
    page.get_by_text("of 70 prompts are answered correctly").wait_for(timeout=60_000)
    page.get_by_text("of 70 answered)").wait_for(timeout=60_000)
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("always active, but none meets").first.wait_for(timeout=60_000)
    page.get_by_text("Among its layer's most active on").wait_for(timeout=60_000)
    assert page.errors == []


def test_every_set_says_how_much_of_it_the_model_answers(page):
    opened(page, "layernorm")
    for label in ("facts (243 of 244 answered)", "repeats (", "names ("):
        page.get_by_role("radio", name=label).wait_for(timeout=60_000)
    page.get_by_role("radio", name="names (").click()
    page.wait_for_function("() => location.search.includes('set=names')", timeout=60_000)
    assert page.errors == []


def test_a_set_that_does_not_come_with_the_model_gives_way_with_a_note(page):
    opened(page, "layernorm?set=world")
    page.get_by_text("“world” does not come with visit-mini; facts is taken").wait_for(timeout=60_000)
    page.get_by_role("radio", name="plain (").click()
    page.wait_for_function("() => location.search.includes('set=plain')", timeout=60_000)
    page.get_by_text("does not come with").wait_for(state="detached", timeout=60_000)
    assert page.errors == []


def test_pasted_prompts_run_and_bad_rows_are_listed(page):
    opened(page, "layernorm?set=own")
    field = page.get_by_label("Prompts, one a line")
    field.fill("The cat sat on\n\n" + "word " * 600 + "\nThe dog ran to")
    field.press("Control+Enter")
    page.get_by_text("rows are left out").wait_for(timeout=60_000)
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("2 prompts, last token").wait_for(timeout=60_000)
    assert page.errors == []


def test_clicks_on_the_charts_choose_a_layer_and_a_neuron(page):
    opened(page, "layernorm?set=plain")
    charts = page.locator("[data-testid=stVegaLiteChart]")
    box = charts.nth(1).bounding_box()
    charts.nth(1).click(position={"x": 60 + (box["width"] - 80) * 5.5 / 8, "y": box["height"] * 0.45})
    page.get_by_text("ln1, layer 5").wait_for(timeout=60_000)
    assert "layer=5" in page.url
    opened(page, "neurons?set=plain&answered=1")
    page.get_by_text("always active, but none meets").first.wait_for(timeout=60_000)
    rows = page.locator("[data-testid=stDataFrame]").first
    rows.click(position={"x": 20, "y": 55})
    page.get_by_text("Neuron L7 N").first.wait_for(timeout=60_000)
    assert "neuron=L7.mlp_value" in page.url and page.errors == []


def test_every_token_of_the_set_and_a_row_leads_to_its_prompt(page):
    opened(page, "neurons?set=plain&neuron=L7.mlp_value377")
    page.get_by_role("button", name="Look at every token of the set").click()
    page.get_by_text("tokens of 70 prompts").wait_for(timeout=60_000)  # it says how far it is until then
    idle(page)
    assert "tokens of 70 prompts" in page.get_by_text("Every one of the").inner_text()
    tables = page.locator("[data-testid=stDataFrame]")
    before = page.get_by_text("The tokens that activate it most").bounding_box()["y"]
    contexts = next(t for t in tables.all() if t.bounding_box()["y"] > before)
    contexts.scroll_into_view_if_needed()
    contexts.click(position={"x": 20, "y": 55})
    page.wait_for_function("() => location.search.includes('prompt=')", timeout=60_000)
    assert "pos=" in page.url and "set=plain" in page.url and page.errors == []


def test_a_result_is_there_without_a_click_after_the_server_was_started_again(page, tmp_path):
    tab = page.context.browser.new_page(viewport={"width": 1440, "height": 1300})
    for first in (True, False):
        with server(VISIT_CACHE=str(tmp_path)) as tab.address:
            opened(tab, "layernorm?set=plain")
            assert tab.get_by_role("button", name="Run", exact=True).count() == first
            if first:
                tab.get_by_role("button", name="Run", exact=True).click()
            tab.get_by_text("70 prompts, last token").wait_for(timeout=60_000)
    tab.close()


def test_a_stop_is_for_everybody_who_watches_and_everybody_can_resume(page, tmp_path):
    file = tmp_path / "many.txt"
    file.write_text("\n".join(f"The man number {i} went to the house and saw the woman in" for i in range(12_000)))
    other = page.context.browser.new_page(viewport={"width": 1440, "height": 1300})
    other.address = page.address
    for tab in (page, other):
        opened(tab, "layernorm?set=own")
        tab.locator("input[type=file]").set_input_files(file)
    page.get_by_role("button", name="Run", exact=True).click(timeout=60_000)
    for tab in (page, other):  # the other finds the run of the same prompts by itself, or by its button
        going = tab.get_by_role("button", name="Stop, and keep")
        going.or_(tab.get_by_role("button", name="Run", exact=True)).first.wait_for(timeout=60_000)
        if not going.count():
            tab.get_by_role("button", name="Run", exact=True).click()
        going.wait_for(timeout=60_000)
    page.get_by_role("button", name="Stop, and keep").click()
    for tab in (page, other):
        tab.get_by_text("Stopped after").wait_for(timeout=60_000)
        tab.get_by_role("button", name="Resume").wait_for(timeout=60_000)
    other.get_by_role("button", name="Resume").click()
    other.get_by_role("button", name="Stop, and keep").wait_for(timeout=60_000)
    other.get_by_role("button", name="Stop, and keep").click()
    other.get_by_role("button", name="Resume").wait_for(timeout=60_000)
    other.close()
    assert page.errors == []


def test_a_head_of_the_roles_table_is_seen_in_the_flow_graph_of_a_line_of_the_set(page):
    page.goto(f"{page.address}/heads?lines=16&node=L4.head1")
    page.get_by_role("button", name="Measure").click(timeout=60_000)
    page.get_by_text("Every part, over the set").wait_for(timeout=120_000)
    idle(page)
    page.get_by_role("button", name="See it in the flow graph").click()
    page.wait_for_url("**/flow?**", timeout=60_000)
    idle(page)
    asked = page.evaluate("Object.fromEntries(new URLSearchParams(location.search))")
    assert asked["node"] == "L4.head1" and asked["detail"] == "4w"
    with (ROOT / "visit/data/visit-mini/prompts/ioi.csv").open(encoding="utf-8") as file:
        line = next(csv.DictReader(file))  # the one that is chosen at first
    assert {name: asked[name] for name in ("prompt", "target", "distractor")} == {
        name: line[name] for name in ("prompt", "target", "distractor")
    }  # fmt: skip
    page.get_by_text("Head L4 H1 at position").wait_for(timeout=60_000)  # it is drawn, and its words are told
    assert page.errors == []
