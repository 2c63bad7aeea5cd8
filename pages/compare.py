"""The compare page: what changes inside the model when one word changes."""

from visit import app as ui
from visit.app import compare

ui.ensure_entrypoint("pages/compare.py")
ui.heading("Compare", "What changes inside the model when the text changes?")
two = compare.two_prompts()
compare.both_answers(two)
compare.parting(two)
compare.both_graphs(two)
