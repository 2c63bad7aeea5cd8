"""How long a visitor waits: `python benchmarks/cold.py`.

A fresh server that has served nobody: time until title and controls are sent, time until the first graph. Then, on the
warm server: a changed prompt, a changed pruning control, a selection. Measured at the websocket, without a browser.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.error import URLError

import websockets
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

ROOT = Path(__file__).parent.parent


class Visitor:
    """One browser tab, as the server sees it."""

    def __init__(self, socket_: object, name: str = "") -> None:
        self.socket, self.query, self.page, self.name, self.widgets = socket_, "", "", name, {}

    async def run(self, **texts: str) -> dict[str, float]:
        """One rerun with some text fields changed: seconds until each kind of thing had been sent."""
        message = BackMsg()
        message.rerun_script.query_string = self.query
        message.rerun_script.page_script_hash = self.page
        if not self.page:
            message.rerun_script.page_name = self.name
        for key, text in texts.items():
            widget = message.rerun_script.widget_states.widgets.add()
            (widget.id, message.rerun_script.fragment_id), widget.string_value = self.widgets[key], text
        started = time.perf_counter()
        await self.socket.send(message.SerializeToString())
        times: dict[str, float] = {}
        while True:
            forward = ForwardMsg()
            forward.ParseFromString(await asyncio.wait_for(self.socket.recv(), 120))
            now = time.perf_counter() - started
            kind = forward.WhichOneof("type")
            if kind == "script_finished":
                if forward.script_finished == ForwardMsg.FINISHED_EARLY_FOR_RERUN:
                    continue
                times["done"] = now
                return times
            if kind == "page_info_changed":
                self.query = forward.page_info_changed.query_string
            if kind == "new_session":
                self.page = forward.new_session.page_script_hash
            if kind == "delta" and forward.delta.WhichOneof("type") == "new_element":
                self._note(forward.delta.new_element, forward.delta.fragment_id, now, times)

    def _note(self, element: object, fragment: str, now: float, times: dict[str, float]) -> None:
        kind = element.WhichOneof("type")
        if kind == "text_input":
            self.widgets[element.text_input.label] = (element.text_input.id, fragment)
            times.setdefault("controls", now)
        elif kind == "heading":
            times.setdefault("title", now)
        elif kind == "bidi_component":
            times["graph"] = now
        elif kind == "exception":
            raise RuntimeError(element.exception.message)


async def visit(port: int) -> None:
    address = f"ws://127.0.0.1:{port}/_stcore/stream"
    options = {"max_size": None, "subprotocols": ["streamlit"], "origin": f"http://127.0.0.1:{port}"}
    async with websockets.connect(address, **options) as channel:
        visitor = Visitor(channel, "flow")
        cold = await visitor.run()
        while "graph" not in cold:  # a fresh server may lead to the page with a second run
            cold = {**await visitor.run(), **cold}
        show("cold: title sent", cold["title"], 1.5)
        show("cold: controls sent", cold["controls"], 1.5)
        show("cold: first graph sent", cold["graph"], 8.0)
        prompts = [
            "The capital of France is the city of",
            "Buenos Aires is the capital of",
            "Lionel Messi plays the sport of",
        ]
        more = [
            f"The capital of {place} is the city of" for place in ("Italy", "Peru", "Kenya", "Chile", "Egypt", "Cuba")
        ]
        for prompt in more:  # the first prompts of a process pay for what is imported and compiled on first use
            await visitor.run(Prompt=prompt)
        single = [(await visitor.run(Prompt=p))["done"] for p in prompts]
        show("changed prompt", max(single), 0.5)
        key = "Values per head"
        show("changed pruning control", max([(await visitor.run(**{key: v}))["done"] for v in ("3", "1", "4")]), 0.2)
    async with websockets.connect(address, **options) as channel:
        visitor = Visitor(channel, "compare")
        while "Prompt B" not in visitor.widgets:
            await visitor.run()
        await visitor.run(**{"Prompt B": "The capital of Spain is the city of"})
        others = [
            f"The capital of {place} is the city of" for place in ("Norway", "Poland", "Kenya", "India", "Brazil")
        ]
        both = [(await visitor.run(**{"Prompt B": p}))["done"] for p in others]
        median = sorted(both)[2]
        show("compare: changed prompt B", median, None)
        print(f"{'  … as a ratio to the flow page':32s} {median / sorted(single)[1]:6.2f}     (allowed 1.5)")
    async with websockets.connect(address, **options) as channel:
        show("a second visitor's whole page", (await Visitor(channel, "flow").run())["done"], None)


def show(name: str, seconds: float, allowed: float | None) -> None:
    print(f"{name:32s} {seconds:6.2f} s" + ("" if allowed is None else f"   (allowed {allowed} s)"))


def main() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "streamlit_app.py"), "--server.port", str(port)]
    server = subprocess.Popen(
        [*command, "--server.address", "127.0.0.1", "--server.headless", "true"],
        cwd=ROOT, env=dict(os.environ), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2).close()
                break
            except (URLError, OSError):
                time.sleep(0.1)
        asyncio.run(visit(port))
        status = Path(f"/proc/{server.pid}/status")
        if status.exists():
            resident = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmRSS"))
            print(f"{'memory of the server':32s} {int(resident) / 1024:6.0f} MB")
    finally:
        server.terminate()
        server.wait(timeout=20)


if __name__ == "__main__":
    main()
