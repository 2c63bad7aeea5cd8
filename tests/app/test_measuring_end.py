"""A program that ends while something is measured ends well."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import time, torch
from visit.app.measuring import Measuring

def work():
    one = torch.randn(700, 700)
    until = time.monotonic() + 2.5
    while time.monotonic() < until:
        one = torch.tanh(one @ one)
    print("measured", flush=True)

one, later = Measuring(), Measuring()
one.ask(work)
later.ask(lambda: print("begun after the end"))
time.sleep(0.8)
"""


@pytest.mark.slow
def test_the_end_waits_for_what_is_measured_and_begins_nothing_more():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "measured" in done.stdout
    assert "begun after" not in done.stdout
    assert "terminate called" not in done.stderr
