"""The compare page: what changes inside the model when one word changes."""

from visit import app as ui
from visit.app import compare

ui.ensure_entrypoint("pages/compare.py")
ui.heading("Compare", "What changes inside the model when the text changes?")
two = compare.two_prompts()
if ui.shows("reading"):
    with ui.part("reading"):
        compare.both_answers(two)
if ui.shows("apart"):
    with ui.part("apart"):
        compare.parting(two)
if ui.shows("graphs"):
    with ui.part("graphs"):
        compare.both_graphs(two)
