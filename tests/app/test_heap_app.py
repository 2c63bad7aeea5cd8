"""What a server keeps in memory besides its caches: no pass for a session, no heap for every thread."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from visit.activations.record import Activations
from visit.app import cache
from visit.app.heap import glibc
from visit.graph.flowgraph import FlowGraph
from visit.runs.worker import SLOW, WORKER

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["flow", "compare", "memory", "layernorm", "neurons", "whatif"])
def test_a_session_keeps_no_pass_and_no_graph(page: str) -> None:
    """Its callbacks live as long as it does, and hold names: else thirty sessions keep thirty passes, model and all."""
    before = {id(one) for one in _live()}
    visitor = AppTest.from_file(str(ROOT / "streamlit_app.py"), default_timeout=60)
    visitor.switch_page(f"pages/{page}.py").run()
    assert not visitor.exception
    for thread in threading.enumerate():
        if thread.name == "measuring":  # it asks for a pass while it goes on
            thread.join(60)
    assert SLOW.reset() and WORKER.reset()  # so does a lens that is fitted, and a set that is counted
    for store in (cache._passes(), cache._results()):
        store.clear()
    assert [type(one).__name__ for one in _live() if id(one) not in before] == []


def _live() -> list[object]:
    gc.collect()
    return [one for one in gc.get_objects() if type(one) in (Activations, FlowGraph)]


ARENAS = """
import ctypes, threading
from streamlit.testing.v1 import AppTest

assert not AppTest.from_file("streamlit_app.py", default_timeout=60).run().exception
libc, all_there = ctypes.CDLL(None), threading.Barrier(24)
libc.malloc.restype = ctypes.c_void_p

def fill():
    libc.malloc(50_000)
    all_there.wait()

threads = [threading.Thread(target=fill) for _ in range(24)]
[one.start() for one in threads]
[one.join() for one in threads]
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(b"OUT", b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


@pytest.mark.skipif(glibc() is None, reason="glibc alone keeps a heap for every thread")
def test_threads_of_a_started_server_share_their_heaps(tmp_path: Path) -> None:
    """Where nothing bounds them, 24 threads have as many heaps as fit: eight for every core."""
    out = tmp_path / "heaps.xml"
    subprocess.run([sys.executable, "-c", ARENAS.replace("OUT", str(out))], cwd=ROOT, check=True, timeout=120)
    assert out.read_text().count("<heap nr=") <= 8


BUFFERS = """
import threading
from pathlib import Path
import psutil
from streamlit.testing.v1 import AppTest

assert not AppTest.from_file("streamlit_app.py", default_timeout=60).run().exception
import torch

left, right, over = torch.ones(240, 576), torch.ones(20_000, 576), threading.Event()
product = left @ right.T

def multiply(done):
    torch.mm(left, right.T, out=product)
    done.set()
    over.wait()

before = psutil.Process().memory_info().rss
for _ in range(12):
    done = threading.Event()
    threading.Thread(target=multiply, args=(done,), daemon=True).start()
    done.wait()
Path("OUT").write_text(str((psutil.Process().memory_info().rss - before) / 12))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measured on Linux")
def test_a_visitor_who_waits_keeps_no_buffers_of_products(tmp_path: Path) -> None:
    """MKL keeps 10 MB for every thread that has multiplied and lives on, unless it is told before its first product."""
    out = tmp_path / "bytes"
    subprocess.run([sys.executable, "-c", BUFFERS.replace("OUT", str(out))], cwd=ROOT, check=True, timeout=120)
    assert float(out.read_text()) < 3e6


KEPT = """
import ctypes, resource
from visit.app.heap import bound_heap

assert bound_heap()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

def step():
    block = libc.malloc(4 << 20)
    ctypes.memset(block, 1, 4 << 20)
    libc.free(block)

step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(glibc() is None, reason="the C library is not glibc")
def test_what_every_step_of_a_reading_takes_is_not_zeroed_anew_for_each():
    """Who fixes the bound of what is mapped fixes the bound of what is given back, too: a third of all reading."""
    done = subprocess.run([sys.executable, "-c", KEPT], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-1000:]
    assert int(done.stdout) < 100, "4 MB are 1,024 pages"
