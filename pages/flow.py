"""The flow page: how the answer came about, in sentences, as a map of the stream, and as the flow graph."""

from visit import app as ui
from visit.app import flow, guide_steps, lens_map

ui.ensure_entrypoint("pages/flow.py")
ui.heading(
    "Flow graph",
    "How did this text lead to its next word? One pass, every vector of it read as words.",
)
subject = ui.prompt_bar(guide_steps.on_flow)
flow.first_screen(subject, lens_map.lens_map)
flow.graph(subject)
