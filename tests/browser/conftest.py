"""One server and one browser for all tests of this folder; only `test_first_steps` belongs to the short run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import browser, need_browser, server


def pytest_collection_modifyitems(items):
    for item in items:
        here = item.path.parent == Path(__file__).parent and item.path.stem != "test_first_steps"
        if here and not item.get_closest_marker("slow"):  # which has a lane of its own, with a Jupyter kernel
            item.add_marker("browser")


@pytest.fixture(scope="session")
def chromium() -> Iterator:
    need_browser()
    with browser() as found:
        yield found


@pytest.fixture(scope="session")
def address(tmp_path_factory) -> Iterator[str]:
    """The app on a server whose cache folder is empty at first."""
    need_browser()
    with server(VISIT_CACHE=str(tmp_path_factory.mktemp("cache"))) as found:
        yield found


@pytest.fixture(scope="module")
def page(chromium, address) -> Iterator:
    """A tab that the tests of a file share: `page.address`, and in `page.errors` what its scripts threw."""
    context = chromium.new_context(viewport={"width": 1440, "height": 1300})
    found = context.new_page()
    found.address, found.errors = address, []
    found.on("pageerror", lambda error: found.errors.append(str(error)))
    yield found
    context.close()
