"""Heads over a set: one's own question, asked of every head (or layer, or neuron) over many prompts."""

from visit import app as ui
from visit.app import guide_steps, head_paths, head_sets, two_sets

ui.ensure_entrypoint("pages/heads.py")
ui.heading("Heads over a set", "Which heads matter for this kind of question, and not only for one text?")
strip = guide_steps.strip_later()
asked = head_sets.question()
if asked is not None:
    with strip:
        guide_steps.on_heads(asked)
    if asked.sums is not None:
        with ui.part("found"):
            head_sets.findings(asked)
        with ui.part("second"):
            two_sets.second_part(asked)
    with ui.part("paths"):
        head_paths.paths_part(asked)
