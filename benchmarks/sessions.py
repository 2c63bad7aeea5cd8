"""Sessions of a Streamlit server without browsers: what a visitor's browser sends, and when the answer is whole.

1. A session opens the websocket and asks for an address; the server runs the page's script.
2. Every message is read until the script has finished: an exception on the page, and the prompt that the page shows,
   are kept, so that errors and sessions that are mixed up are found.
3. What a visitor changes is asked as the address that the page would have then.
4. While a visitor thinks, what the page looks at again by itself is asked as a browser does, at its interval.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

import psutil
import websockets
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

ROOT = Path(__file__).parent.parent
LIMIT = 300.0  # seconds for one answer


@contextlib.contextmanager
def server(environment: Mapping[str, str]) -> Iterator[tuple[int, psutil.Process]]:
    """The app on a free port, as `streamlit run` starts it: its port and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "streamlit_app.py", "--server.headless", "true",
               "--server.port", str(port), "--browser.gatherUsageStats", "false"]  # fmt: skip
    run = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), urlopen(f"http://127.0.0.1:{port}/_stcore/health"):
                break
            time.sleep(0.1)
        yield port, psutil.Process(run.pid)
    finally:
        run.terminate()
        run.wait(60)


class Session:
    """One visitor. `exceptions`: what the pages showed as such; `prompt`: what stands in the prompt field."""

    def __init__(self, port: int) -> None:
        self.port, self.pages = port, {"": ""}  # page -> its hash
        self.exceptions: list[str] = []
        self.prompt = ""
        self.running = False  # the server runs the page, or a part of it
        self._page, self._address = "", ""
        self._timers: dict[str, float] = {}  # part of the page -> interval at which it is asked for
        self._started: dict[str, float] = {}  # in the run that goes on
        self._socket: websockets.ClientConnection | None = None

    async def __aenter__(self) -> Session:
        self._socket = await websockets.connect(
            f"ws://127.0.0.1:{self.port}/_stcore/stream", max_size=None, subprotocols=["streamlit"],  # type: ignore
            origin=f"http://127.0.0.1:{self.port}",  # type: ignore[arg-type]
        )  # fmt: skip
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._socket is not None
        await self._socket.close()

    async def open(self, page: str, **address: str) -> float:
        """Ask for a page, and wait until it is whole; the seconds that this took."""
        assert self._socket is not None
        message = BackMsg()
        message.rerun_script.query_string = self._address = urlencode(address)
        if page in self.pages:
            message.rerun_script.page_script_hash = self.pages[page]
        else:
            message.rerun_script.page_name = page
        self._page = page
        began = time.perf_counter()
        await self._socket.send(message.SerializeToString())
        while not self._take(await asyncio.wait_for(self._socket.recv(), LIMIT)):
            pass
        return time.perf_counter() - began

    async def think(self, seconds: float) -> None:
        """Let time pass, as a browser does: timers of the page go on. Ends when nothing of it runs any more."""
        until, due = (
            time.monotonic() + seconds,
            {name: time.monotonic() + every for name, every in self._timers.items()},
        )
        while (now := time.monotonic()) < until or self.running:
            due = {name: due.get(name, now + every) for name, every in self._timers.items()}
            if not self.running and due and min(due.values()) <= now:
                name = min(due, key=lambda one: due[one])
                due[name] = now + self._timers[name]
                await self._look(name)
            waits = LIMIT if self.running else min([until, *due.values()]) - now
            with contextlib.suppress(TimeoutError):
                assert self._socket is not None
                self._take(await asyncio.wait_for(self._socket.recv(), max(0.01, waits)))

    async def _look(self, fragment: str) -> None:
        assert self._socket is not None
        message = BackMsg()
        message.rerun_script.query_string = self._address
        message.rerun_script.page_script_hash = self.pages.get(self._page, "")
        message.rerun_script.fragment_id, message.rerun_script.is_auto_rerun = fragment, True
        self.running = True
        await self._socket.send(message.SerializeToString())

    def _take(self, raw: bytes | str) -> bool:
        """Look at a message; whether it ends a run of the whole page."""
        assert isinstance(raw, bytes)
        message = ForwardMsg()
        message.ParseFromString(raw)
        kind = message.WhichOneof("type")
        if kind == "navigation":
            self.pages = {one.url_pathname: one.page_script_hash for one in message.navigation.app_pages}
        if kind == "delta" and message.delta.WhichOneof("type") == "new_element":
            element = message.delta.new_element
            if element.WhichOneof("type") == "exception":
                self.exceptions.append(element.exception.message[:200])
            if element.WhichOneof("type") == "text_area" and element.text_area.id.endswith("-w_prompt"):
                area = element.text_area
                self.prompt = area.value if area.set_value else area.default
        if kind == "new_session":
            self.running, self._started = True, {}
        if kind == "auto_rerun":
            self._started[message.auto_rerun.fragment_id] = message.auto_rerun.interval
        if kind == "script_finished":  # a part that asks for the whole page ends early, and the page begins
            self.running = message.script_finished == ForwardMsg.FINISHED_EARLY_FOR_RERUN
            kept = {} if message.script_finished == ForwardMsg.FINISHED_SUCCESSFULLY else self._timers
            self._timers = {**kept, **self._started}
        return kind == "script_finished" and message.script_finished == ForwardMsg.FINISHED_SUCCESSFULLY


def told(seconds: list[float]) -> str:
    """Median, 95th percentile and longest, in seconds."""
    if not seconds:
        return "-"
    ordered = sorted(seconds)
    middle, late = ordered[len(ordered) // 2], ordered[int(0.95 * (len(ordered) - 1))]
    return f"p50 {middle:.2f}  p95 {late:.2f}  max {ordered[-1]:.2f} s  (n {len(ordered)})"
