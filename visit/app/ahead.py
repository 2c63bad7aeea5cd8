"""What the first page needs is imported when a server starts, while the first browser still loads Streamlit itself.

1. The modules of the start page and the flow page, in the order in which a first run asks for them: a run that comes
   meanwhile waits for the one that is being read, and goes on with it. Never torch: it would take seconds.
2. The recording that stands in for the opening question, decoded.
3. What was imported is not looked at by the garbage collector again: every full collection would take a tenth of a
   second more, and one falls into a first run.
"""

from __future__ import annotations

import gc
import inspect
from importlib import import_module

OPENING = "opening"
AHEAD = (
    "visit.app", "visit.app.home", "visit.app.flow", "visit.app.guide_steps", "visit.app.lens_map", "PIL.Image",
    "streamlit.material_icon_names", "pandas", "visit.files.recording", "visit.analyses.function_words",
    "visit.figures.lens_rows", "visit.graph.prune", "visit.drawing.draw",
)  # fmt: skip


def import_ahead() -> None:
    """Import what the first picture needs. Call once, on a thread of its own, when the server starts."""
    for name in AHEAD:
        import_module(name)
    from visit.app.recorded import recording_named

    assert recording_named(OPENING).runs[0].graph.by_id
    inspect.stack()  # Streamlit asks for it before its first element, and Python looks for every module's file then
    gc.freeze()
