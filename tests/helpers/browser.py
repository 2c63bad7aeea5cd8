"""A real server and a real browser, for what AppTest cannot see: routing, clicks on our drawing, themes."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest

ROOT = Path(__file__).parents[2]
CHROMIUM = Path("/usr/bin/chromium")
PATIENCE = 60_000  # ms that anything on a page may take: on a machine of many, ten times what it takes on an idle one


def need_browser() -> None:
    """Skip where there is no Chromium; under VISIT_BROWSER=required (.ci/run) its absence is a failure."""
    try:
        import playwright  # noqa: F401
    except ImportError:
        why = "playwright is not installed (pip install -r requirements-dev.txt)"
    else:
        if CHROMIUM.exists():
            return
        why = f"there is no {CHROMIUM} (Debian: apt-get install chromium)"
    if os.environ.get("VISIT_BROWSER") == "required":
        pytest.fail(f"browser tests are required here, but {why}")
    pytest.skip(f"browser test: {why}")


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/_stcore/health", timeout=5):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def server(script: Path = ROOT / "streamlit_app.py", **env: str) -> Iterator[str]:
    """A fresh Streamlit process on a free port of the loopback interface; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(script)]
    options = ["--server.port", str(port), "--server.address", "127.0.0.1", "--server.headless", "true"]
    process = subprocess.Popen(
        [*command, *options, "--browser.gatherUsageStats", "false"],
        cwd=ROOT, env={**os.environ, **env}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 120
        while not answers(address):
            assert process.poll() is None and time.monotonic() < until, "the server did not start"
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=60)


@contextlib.contextmanager
def browser() -> Iterator:
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
        chromium.new_context = partial(_watched_context, chromium.new_context)
        chromium.new_page = lambda **options: chromium.new_context(**options).new_page()
        try:
            yield chromium
        finally:
            chromium.close()


# When the page last asked its server for a run, and when a run last began, as the messages between them say. (A
# message's first field but its hash and its metadata tells its kind: 11 asks, 4 begins.)
ASKED = """(() => {
  const kind = (bytes) => {
    let at = 0;
    const number = () => {
      let found = 0;
      for (let shift = 0; ; shift += 7) {
        const byte = bytes[at++];
        found |= (byte & 127) << shift;
        if (!(byte & 128)) return found;
      }
    };
    while (at < bytes.length) {
      const field = number() >> 3;
      if (field > 2) return field;
      const length = number();
      at += length;
    }
  };
  const read = (data) => kind(data instanceof ArrayBuffer ? new Uint8Array(data) : data);
  window.WebSocket = class extends WebSocket {
    constructor(...where) {
      super(...where);
      this.addEventListener("message", ({ data }) => {
        if (data instanceof ArrayBuffer && read(data) === 4) window.runBegan = performance.now();
      });
    }
    send(data) {
      if (typeof data !== "string" && read(data) === 11) window.runAsked = performance.now();
      super.send(data);
    }
  };
})()"""


def _watched_context(made, **options):
    """A context of a browser whose pages know whether a run they asked for has begun, and are waited for patiently."""
    context = made(**options)
    context.set_default_timeout(PATIENCE)
    context.add_init_script(ASKED)
    return context


def soon(holds: Callable[[], Any], seconds: float = PATIENCE / 1000) -> Any:
    """What `holds()` says, as soon as it is true; what it said last where it never is."""
    end = time.monotonic() + seconds
    while not (found := holds()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


# A script runs, or was asked for and has not begun (but for what the server takes for outdated, and never answers).
RUNS = """() => {
  const app = document.querySelector("[data-testid=stApp]"), asked = window.runAsked;
  const waits = !asked || (!(window.runBegan >= asked) && performance.now() - asked < 10_000);
  return waits || app?.dataset.testScriptState !== "notRunning"
    || Boolean(document.querySelector("[data-testid=stStatusWidget]"));
}"""


def ready(page, timeout: float = PATIENCE) -> None:
    """Wait until the flow graph stands and no script runs, nor is one asked for."""
    page.locator(".nodes .n").first.wait_for(timeout=timeout)
    page.wait_for_function(f"() => !({RUNS})()", timeout=timeout)


# No script has run for 0.4 s, fonts are there, and the browser has nothing to do: on a busy machine a drawing comes
# late. Chromium may forget the second after the mouse has moved on a page that is at rest, hence its bound.
RESTS = """(asked) => {
  const now = performance.now();
  if ((RUNS)() || document.fonts.status !== "loaded") window.resting = null;
  else if (!window.resting || window.resting.asked !== asked) window.resting = { asked, since: now };
  else if (now - window.resting.since > 400 && !window.resting.waits) {
    const mine = window.resting;
    mine.waits = true;
    const bound = { timeout: 1000 };
    requestIdleCallback(() => requestIdleCallback(() => { mine.done = true; }, bound), bound);
  }
  return Boolean(window.resting && window.resting.done);
}""".replace("RUNS", RUNS)


def idle(page) -> None:
    """Wait until a rerun has begun and ended."""
    page.wait_for_timeout(500)  # what is clicked may ask a moment later
    page.wait_for_function(RESTS, arg=time.monotonic(), polling=50, timeout=PATIENCE)


def foreign_requests(page, address: str) -> list[str]:
    """A list that grows with every request of the page to another host: what for, and from which page."""
    asked: list[str] = []
    host = urlparse(address).netloc

    def note(request) -> None:
        url = urlparse(request.url)
        if url.scheme not in ("data", "blob", "about") and url.netloc != host:
            asked.append(f"{request.resource_type} {request.url} (on {urlparse(page.url).path})")

    page.on("request", note)
    return asked


def navigation(chromium, address: str) -> list[str]:
    """The paths of all pages of the navigation, hidden ones left out."""
    context = chromium.new_context(viewport={"width": 1440, "height": 1000})
    page = context.new_page()
    page.goto(f"{address}/glossary")
    page.locator("[data-testid=stSidebarNavLink]").first.wait_for(timeout=60_000)
    links = page.locator("[data-testid=stSidebarNavLink]").evaluate_all("all => all.map((a) => a.pathname)")
    context.close()
    return list(dict.fromkeys(links))
