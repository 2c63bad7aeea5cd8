"""A server that starts imports ahead what the first picture needs, and opens a browser where somebody sits."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import webbrowser
from concurrent.futures import ThreadPoolExecutor
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import streamlit as st
from recordings import blocking
from streamlit import config

ROOT = Path(__file__).parents[2]

FIRST_RUN = (
    blocking("torch", "transformers")
    + """
import json
from streamlit.testing.v1 import AppTest
from visit.app.ahead import import_ahead
import_ahead()
before = set(sys.modules)
app = AppTest.from_file(sys.argv[1], default_timeout=90).switch_page("pages/flow.py").run()
assert not app.exception and any("The flow" == one.value for one in app.header)
print(json.dumps(sorted(set(sys.modules) - before)))
"""
)


@pytest.mark.slow
def test_the_first_picture_imports_nothing_that_was_not_imported_ahead_and_never_torch():
    done = subprocess.run([sys.executable, "-c", FIRST_RUN, str(ROOT / "streamlit_app.py")],
                          capture_output=True, text=True, cwd=ROOT, timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    late = [name for name in json.loads(done.stdout.splitlines()[-1])
            if name.split(".")[0] in ("visit", "pandas", "numpy", "pyarrow", "rapidfuzz", "safetensors")]  # fmt: skip
    assert set(late) <= {"pandas.core.methods.to_dict"}, "name them in visit.app.ahead.AHEAD"


@pytest.fixture
def server(monkeypatch):
    """The entry point as a server reads it: no page is drawn, and nothing of the app is imported yet."""
    monkeypatch.setattr(config, "_main_script_path", str(ROOT / "streamlit_app.py"))
    spec = spec_from_file_location("streamlit_app", ROOT / "streamlit_app.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_server_is_found_in_the_entry_point_and_imports_ahead_when_it_starts(server, monkeypatch):
    from streamlit.web.server.app_discovery import discover_asgi_app

    assert discover_asgi_app(ROOT / "streamlit_app.py").import_string == "streamlit_app:app"
    assert isinstance(server.app, st.App)
    begun = threading.Event()
    monkeypatch.setattr("visit.app.ahead.import_ahead", begun.set)

    async def live() -> None:
        async with server.started(server.app):
            assert await asyncio.to_thread(begun.wait, 10)

    with ThreadPoolExecutor(1) as thread:  # Playwright leaves its loop to the process's main thread
        thread.submit(lambda: asyncio.run(live())).result()


@pytest.mark.parametrize(("options", "opened"), [
    ({"server.headless": True}, []),
    ({"server.headless": False}, ["http://localhost:8512"]),
    ({"server.headless": False, "server.address": "0.0.0.0"}, ["http://localhost:8512"]),
    ({"server.headless": False, "server.address": "10.1.2.3"}, ["http://10.1.2.3:8512"]),
])  # fmt: skip
def test_a_browser_is_opened_where_somebody_sits(server, monkeypatch, options, opened):
    given = {"server.port": 8512, **options}
    asked = config.get_option
    monkeypatch.setattr(config, "get_option", lambda name: given.get(name, asked(name)))
    monkeypatch.setattr(st, "get_option", config.get_option)
    found, done = [], threading.Event()
    monkeypatch.setattr(webbrowser, "open", lambda url: (found.append(url), done.set()))
    server._open_browser()
    assert done.wait(30 if opened else 0.1) == bool(opened) and found == opened
