"""The causal trace: a subject is made unreadable, one state put back at a time, and what brings the answer back."""

from visit import app as ui
from visit.app import trace

ui.ensure_entrypoint("pages/trace.py")
ui.heading("Causal trace", "Where does the answer pass, on its way from a word of the prompt to the end?")
asked = trace.chosen_trace(ui.prompt_bar())
if asked is not None:
    reading = ui.part("reading")
    table = trace.traced(asked)
    if table is not None:
        if ui.shows("reading"):
            with reading:
                trace.trace_told(asked, table)
        if ui.shows("maps"):
            with ui.part("maps"):
                trace.maps(asked, table)
