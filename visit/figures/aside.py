"""Libraries that draw keep Python's lock while they draw: a large drawing is made in a process of its own.

On a server everything stands still meanwhile, for all visitors, even the page that another one waits for: a PDF of a
graph of 9,000 nodes took 23 s. What is small is drawn here: it takes less time than a process takes to begin.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from importlib import import_module
from typing import Any

from visit.errors import VisitError

DRAWN_HERE = 50_000  # characters that are drawn within this process: a few tenths of a second
DRAWING_SECONDS = 180.0  # seconds that a drawing may take
_one_large = threading.Lock()  # one at a time: what one takes is bounded, not what thirty do
_DRAWING_PROGRAM = """
import json, sys
from importlib import import_module
module, function, options = json.load(sys.stdin)
made = getattr(import_module(module), function)(**options)
sys.stdout.buffer.write(made.encode() if isinstance(made, str) else bytes(made))
"""


def drawn_aside(module: str, function: str, **options: Any) -> bytes:
    """What a library's function makes of `options`, which are JSON, as bytes (a text in UTF-8).

    Raises `VisitError` for what takes longer than DRAWING_SECONDS, or that the library cannot draw.
    """
    asked = json.dumps([module, function, options])
    if len(asked) <= DRAWN_HERE:
        made = getattr(import_module(module), function)(**options)
        return made.encode() if isinstance(made, str) else bytes(made)
    command = [sys.executable, "-c", _DRAWING_PROGRAM]
    try:
        with _one_large:
            done = subprocess.run(
                command, input=asked.encode(), capture_output=True, timeout=DRAWING_SECONDS, check=False
            )
    except subprocess.TimeoutExpired as error:
        raise VisitError(
            f"This drawing takes longer than {DRAWING_SECONDS / 60:.0f} minutes. Show fewer nodes, or save it as .svg."
        ) from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit status {done.returncode}"]
        raise VisitError(f"This drawing cannot be made ({said[-1][:200]}). Show fewer nodes, or save it as .svg.")
    return done.stdout
