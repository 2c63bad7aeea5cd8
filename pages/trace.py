"""The causal trace: a subject is made unreadable, one state put back at a time, and what brings the answer back."""

from visit import app as ui
from visit.app import guide_steps, trace

ui.ensure_entrypoint("pages/trace.py")
ui.heading("Causal trace", "Where does the answer pass, on its way from a word of the prompt to the end?")
subject = ui.prompt_bar()
strip = guide_steps.strip_later()
asked = trace.chosen_trace(subject)
if asked is not None:
    reading = ui.part("reading")
    table = trace.traced(asked)
    with strip:
        guide_steps.on_trace(subject, asked.where, table)
    if table is not None:
        if ui.shows("reading"):
            with reading:
                trace.trace_told(table)
        if ui.shows("maps"):
            with ui.part("maps"):
                trace.maps(asked, table)
