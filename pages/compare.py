"""The compare page: what changes inside the model when one word changes."""

from visit import app as ui
from visit.app import compare

ui.ensure_entrypoint("pages/compare.py")
ui.heading("Compare", "What changes inside the model when the text changes?")
two = compare.two_prompts()
with ui.part("reading"):
    compare.both_answers(two)
with ui.part("apart"):
    compare.parting(two)
with ui.part("graphs"):
    compare.both_graphs(two)
