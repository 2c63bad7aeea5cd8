"""A lens is fitted while one looks: no spinner over the page, and the map is read through it when it is asked for."""

from __future__ import annotations

from browser import ready, server


def test_the_embedded_models_lens_is_fitted_by_itself_and_then_one_click_away(chromium, tmp_path):
    with server(VISIT_CACHE=str(tmp_path)) as address:
        context = chromium.new_context(viewport={"width": 1440, "height": 1300})
        page, errors = context.new_page(), []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{address}/flow")
        ready(page)
        assert page.get_by_text("As the plain lens reads it, ").count() == 1, "plain meanwhile"
        page.get_by_role("button", name="Controls").first.click()
        page.get_by_text("so it is what opens").wait_for(timeout=90_000)
        assert len(list((tmp_path / "lenses").glob("*.safetensors"))) == 1
        page.get_by_role("radio", name="fitted").click()
        page.get_by_role("heading", name="through the lens fitted on 8,000 tokens").wait_for(timeout=60_000)
        page.get_by_text("As the fitted lens reads it, ").first.wait_for(timeout=60_000)
        page.wait_for_function("() => location.search.includes('reads=fitted')", timeout=60_000)
        other = context.new_page()  # for everybody on this model, plain stays what opens
        other.goto(f"{address}/flow")
        ready(other)
        assert other.get_by_text("As the plain lens reads it, ").count() == 1
        other.goto(f"{address}/compare?reads=fitted&prompt_b=The+capital+of+France+is+the+city+of")
        other.get_by_text("As the fitted lens reads them, ").first.wait_for(timeout=60_000)
        assert errors == []
        context.close()
