"""A class in one room, without browsers: `python benchmarks/room.py [30] [100] [--steps 3] [--without-reveal]`.

A fresh server on this machine; one teacher and so many students, each a websocket that sends and waits as a browser tab
does. Students join, begin the lesson, answer the questions before it, and then follow: when the teacher opens a step
they go there, look at it for some seconds, and answer its first question. Between clicks their pages ask every two
seconds what has changed. All of it happens on the same cores, the students' side included.

Printed: how long a click takes until its page is drawn (median, 95 of 100, longest), by kind; how many of the waiting
pages' requests a second were answered, and how fast; errors; the server's memory.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import socket
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from pathlib import Path

import websockets
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

ROOT = Path(__file__).parent.parent
PATIENCE = 90.0  # seconds
WHOLE, FRAGMENT = ForwardMsg.FINISHED_SUCCESSFULLY, ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY


class Measured:
    """What all tabs of a class measured."""

    def __init__(self) -> None:
        self.clicks: dict[str, list[float]] = defaultdict(list)
        self.polls: list[float] = []
        self.asked = 0
        self.errors: list[str] = []


class Tab:
    """One browser tab, as the server sees it: it sends what a browser sends, its timers included."""

    def __init__(self, port: int, measured: Measured) -> None:
        self.port, self.measured = port, measured
        self.query, self.page, self.name = "", "", ""
        self.widgets: dict[str, tuple[str, str, list[str]]] = {}  # label → id, fragment, options
        self.values: dict[str, tuple[str, object]] = {}
        self.texts: list[str] = []
        self.timers: list[asyncio.Task] = []
        self.done = asyncio.Event()
        self.polled: float | None = None

    async def __aenter__(self) -> Tab:
        address = f"ws://127.0.0.1:{self.port}/_stcore/stream"
        self.socket = await websockets.connect(
            address, max_size=None, subprotocols=["streamlit"], origin=f"http://127.0.0.1:{self.port}",
            open_timeout=PATIENCE, ping_interval=None,
        )  # fmt: skip
        self.reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in (*self.timers, self.reader):
            task.cancel()
        await self.socket.close()

    # ---- what a visitor does -----------------------------------------------------------------------------------------
    async def open(self, name: str, query: str = "") -> float:
        self.name, self.query, self.page = name, query, ""
        return await self._run(BackMsg())

    async def click(self, label: str, whole: bool = False) -> float:
        """Press a button. `whole`: one in a fragment that has the whole page drawn anew."""
        return await self._with(label, "trigger_value", True, whole)

    async def write(self, label: str, text: str) -> None:
        self.values[self._widget(label)[0]] = ("string_value", text)

    async def choose(self, label: str, n: int) -> float:
        widget, _, options = self._widget(label)
        self.values[widget] = ("string_value", options[n])
        return await self._run(BackMsg())

    async def until(self, label: str, seconds: float = PATIENCE) -> None:
        """Wait until a widget is there whose label begins so."""
        async with asyncio.timeout(seconds):
            while not any(known.startswith(label) for known in self.widgets):
                await asyncio.sleep(0.1)

    def _widget(self, label: str) -> tuple[str, str, list[str]]:
        for known, widget in self.widgets.items():
            if known.startswith(label):
                return widget
        raise LookupError(f"no widget {label!r}: {list(self.widgets)}, {self.texts[-5:]}")

    async def _with(self, label: str, kind: str, value: object, whole: bool) -> float:
        widget, fragment, _ = self._widget(label)
        message = BackMsg()
        message.rerun_script.fragment_id = fragment
        one = message.rerun_script.widget_states.widgets.add()
        one.id = widget
        setattr(one, kind, value)
        return await self._run(message, whole)

    async def _run(self, message: BackMsg, whole: bool = True) -> float:
        """Send it, and wait until the whole page was drawn (of a button in a fragment: the fragment, or the page)."""
        self.done.clear()
        self.wants = {WHOLE} if whole or not message.rerun_script.fragment_id else {WHOLE, FRAGMENT}
        started = time.perf_counter()
        await self._send(message)
        async with asyncio.timeout(PATIENCE):
            await self.done.wait()
        return time.perf_counter() - started

    async def _send(self, message: BackMsg) -> None:
        script = message.rerun_script
        script.query_string, script.page_script_hash = self.query, self.page
        if not self.page:
            script.page_name = self.name
        for widget, (kind, value) in self.values.items():
            one = script.widget_states.widgets.add()
            one.id = widget
            setattr(one, kind, value)
        await self.socket.send(message.SerializeToString())

    # ---- what comes back ---------------------------------------------------------------------------------------------
    async def _read(self) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            async for raw in self.socket:
                message = ForwardMsg()
                message.ParseFromString(raw)
                self._take(message)

    def _take(self, message: ForwardMsg) -> None:
        kind = message.WhichOneof("type")
        if kind == "new_session":
            if not message.metadata.run.fragment_ids:  # the whole page: its timers begin anew
                self.widgets, self.texts = {}, []
                for timer in self.timers:
                    timer.cancel()
                self.timers = []
        elif kind == "navigation":
            self.page = message.navigation.page_script_hash
        elif kind == "page_info_changed":
            self.query = message.page_info_changed.query_string
        elif kind == "auto_rerun":
            self.timers.append(
                asyncio.create_task(self._poll(message.auto_rerun.interval, message.auto_rerun.fragment_id))
            )
        elif kind == "script_finished":
            if message.script_finished == FRAGMENT and self.polled is not None:
                self.measured.polls.append(time.perf_counter() - self.polled)
                self.polled = None
            if message.script_finished in getattr(self, "wants", ()):
                self.done.set()
        elif kind == "delta" and message.delta.WhichOneof("type") == "new_element":
            self._element(message.delta.new_element, message.delta.fragment_id)

    def _element(self, element: object, fragment: str) -> None:
        kind = element.WhichOneof("type")
        if kind in ("button", "text_input", "text_area", "radio", "checkbox"):
            one = getattr(element, kind)
            self.widgets[one.label] = (one.id, fragment, list(one.options) if kind == "radio" else [])
            if kind == "radio":  # the questions' radios have one label
                self.widgets[f"radio {sum(label.startswith('radio ') for label in self.widgets)}"] = self.widgets[
                    one.label
                ]
        elif kind == "exception":
            self.measured.errors.append(f"{element.exception.type}: {element.exception.message}"[:200])
        elif kind == "alert":
            self.texts.append(element.alert.body)

    async def _poll(self, interval: float, fragment: str) -> None:
        while True:
            await asyncio.sleep(interval)
            message = BackMsg()
            message.rerun_script.fragment_id, message.rerun_script.is_auto_rerun = fragment, True
            self.measured.asked += 1
            self.polled = time.perf_counter()
            await self._send(message)


async def student(n: int, port: int, code: str, steps: int, measured: Measured, ready: asyncio.Semaphore) -> None:
    think = random.Random(n)
    clicks = measured.clicks
    await asyncio.sleep(think.random() * 10)  # thirty people do not press Enter at once
    async with Tab(port, measured) as tab:
        clicks["open the link"].append(await tab.open("learn", f"room={code}"))
        await tab.write("Nickname", f"Student {n}")
        clicks["join"].append(await tab.click("Join"))
        clicks["begin the lesson"].append(await tab.click("Begin it"))
        for question in range(4):
            await asyncio.sleep(1 + 2 * think.random())
            clicks["answer a choice"].append(await tab.choose(f"radio {question}", think.randrange(4)))
        ready.release()
        for step in range(1, steps + 1):
            await tab.until("Go on to")
            await asyncio.sleep(2 * think.random())  # who sees it presses it
            clicks[f"open step {step}"].append(await tab.click("Go on to", whole=True))
            await asyncio.sleep(3 + 4 * think.random())
            await tab.write("Your answer", think.choice(["Tokyo", "Kyoto", "6", "L4 H1", "3"]))
            clicks["answer in a step"].append(await tab.click("Check"))
            ready.release()
        await asyncio.sleep(5)


async def teacher(port: int, count: int, steps: int, reveals: bool, measured: Measured, ready: asyncio.Semaphore,
                  opened: asyncio.Future) -> None:  # fmt: skip
    async with Tab(port, measured) as tab:
        await tab.open("room")
        await tab.click("Open the room")
        opened.set_result(tab.query.split("room=")[1][:4])
        for step in range(steps + 1):
            for _ in range(count):
                await ready.acquire()
            if reveals:
                measured.clicks["teacher: reveal"].append(await tab.click("Reveal the answers"))
                await asyncio.sleep(4)
            if step < steps:
                measured.clicks["teacher: open a step"].append(await tab.click(f"Open step {step + 1}"))
        await asyncio.sleep(3)


async def hold(port: int, count: int, steps: int, reveals: bool) -> tuple[Measured, float]:
    measured, ready = Measured(), asyncio.Semaphore(0)
    opened: asyncio.Future = asyncio.get_running_loop().create_future()
    begun = time.perf_counter()
    leading = asyncio.create_task(teacher(port, count, steps, reveals, measured, ready, opened))
    code = await asyncio.wait_for(opened, PATIENCE)
    work = [student(n, port, code, steps, measured, ready) for n in range(count)]

    async def counted(one: object) -> None:
        try:
            await one
        except Exception as problem:
            measured.errors.append(f"{type(problem).__name__}: {problem}"[:300])
            for _ in range(steps + 1):
                ready.release()

    await asyncio.gather(*(counted(one) for one in work), counted(leading))
    return measured, time.perf_counter() - begun


def tell(name: str, seconds: list[float]) -> None:
    ordered = sorted(seconds) or [float("nan")]
    p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    print(f"  {name:22s} n {len(seconds):4d}   median {ordered[len(ordered) // 2]:6.2f} s   p95 {p95:6.2f} s   "
          f"longest {ordered[-1]:6.2f} s")  # fmt: skip


def memory(pid: int) -> float:
    """MB of a process, where the system says so."""
    status = Path(f"/proc/{pid}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), float("nan"))


def processor(pid: int) -> float:
    """Seconds of processor time that a process has taken, where the system says so."""
    stat = Path(f"/proc/{pid}/stat")
    parts = stat.read_text().rpartition(")")[2].split() if stat.exists() else []
    return sum(map(int, parts[11:13])) / os.sysconf("SC_CLK_TCK") if parts else float("nan")


def measure(count: int, steps: int, reveals: bool) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "streamlit", "run", str(ROOT / "streamlit_app.py"), "--server.port", str(port),
         "--server.address", "127.0.0.1", "--server.headless", "true"],
        cwd=ROOT, env=dict(os.environ), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(300):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health"):
                break
            time.sleep(0.1)
        asyncio.run(warm(port))
        before = processor(server.pid)
        measured, seconds = asyncio.run(hold(port, count, steps, reveals))
        taken = processor(server.pid) - before
        revealing = "reveals every step" if reveals else "reveals nothing"
        print(f"{count} students, {steps} steps, a teacher who {revealing}: {seconds:.0f} s, "
              f"{len(measured.errors)} errors, {memory(server.pid):.0f} MB, {taken:.0f} s processor")  # fmt: skip
        for name, times in measured.clicks.items():
            tell(name, times)
        tell("a waiting page", measured.polls or [float("nan")])
        print(f"  waiting pages: {measured.asked / seconds:.1f} requests a second, {len(measured.polls)} of "
              f"{measured.asked} answered before the next click")  # fmt: skip
        for problem in dict.fromkeys(measured.errors):
            print(f"  error: {problem}")
    finally:
        server.terminate()
        server.wait(timeout=20)


async def warm(port: int) -> None:
    """The teacher tries the lesson before the class does: model and libraries are loaded then."""
    async with Tab(port, Measured()) as tab:
        await tab.open("flow")
        while "Prompt" not in tab.widgets:  # a fresh server may lead to the page with a second run
            await tab.open("flow")
        await tab.open("flow", "lesson=3-recall&step=1")
        await tab.write("Your answer", "Tokyo")
        await tab.click("Check")
        await asyncio.sleep(5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("students", nargs="*", type=int, default=[30, 100])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--without-reveal", action="store_true")
    options = parser.parse_args()
    for count in options.students:
        measure(count, options.steps, not options.without_reveal)


if __name__ == "__main__":
    main()
