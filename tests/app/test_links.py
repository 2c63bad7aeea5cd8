"""Whatever changes a picture is in the address: what hands have made of a page, opened by its link, is the same page.

Hands here are Python's: any control of a page is turned, whichever they are. What only a browser can turn is in
tests/browser/test_links_clicks.py.
"""

from __future__ import annotations

import pytest
from links import VIEWS, run_sets, walk

WALKS = 6  # through each of the nine pages


@pytest.mark.slow
@pytest.mark.parametrize("page", VIEWS)
def test_a_view_that_controls_have_made_is_its_link(page, tmp_path, monkeypatch):
    monkeypatch.setenv("VISIT_CACHE", str(tmp_path))
    run_sets(page)
    for seed in range(WALKS):
        walk(page, seed)
