"""A live server whose turns are taken: who waits is told how many are before, and gets the whole page afterwards."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, threading, time
from pathlib import Path

HERE = Path(__file__).parent

def hold(turns):
    with turns.taken():
        (HERE / f"held {threading.get_ident()}").touch()
        while not (HERE / "release").exists():
            time.sleep(0.05)

def begin():
    while not (HERE / "hold").exists():
        time.sleep(0.05)
    from visit.app.cache import turns
    for _ in range(3):  # two compute, a third waits
        threading.Thread(target=hold, args=(turns(),), daemon=True).start()

if "streamlit" in sys.orig_argv:
    threading.Thread(target=begin, daemon=True).start()
"""


@pytest.mark.slow
def test_a_visitor_who_waits_for_a_turn_reads_how_many_are_before(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import sessions

    (tmp_path / "sitecustomize.py").write_text(HOLD)
    said: list[str] = []

    class Waiting(sessions.Session):
        def _take(self, raw):
            said.extend(one.spinner.text for one in ForwardMsg.FromString(raw).delta.new_transient.elements)
            if any("before you" in text for text in said):
                (tmp_path / "release").touch()
            return super()._take(raw)

    async def visit(port: int) -> Waiting:
        async with Waiting(port) as visitor:
            await visitor.open("flow")
            (tmp_path / "hold").touch()
            until = time.monotonic() + 150
            while len(list(tmp_path.glob("held *"))) < 2:
                assert time.monotonic() < until
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.3)  # the third has come, too
            said.clear()
            await visitor.open("flow", prompt="The capital of Peru is the city of")
        return visitor

    environment = {"PYTHONPATH": str(tmp_path), "VISIT_CACHE": str(tmp_path / "cache")}
    # a thread of its own: a browser that a test before it left open keeps an event loop running in this one
    with sessions.server(environment) as (port, _), ThreadPoolExecutor(1) as thread:
        visitor = thread.submit(lambda: asyncio.run(asyncio.wait_for(visit(port), 300))).result()
    assert "Many ask at once: 2 before you." in said
    assert visitor.prompt == "The capital of Peru is the city of" and not visitor.exceptions
