"""Heads over a set: one's own question, asked of every head (or layer, or neuron) over many prompts."""

from visit import app as ui
from visit.app import head_paths, head_sets

ui.ensure_entrypoint("pages/heads.py")
ui.heading("Heads over a set", "Which heads matter for this kind of question, and not only for one text?")
head_paths.paths_part(head_sets.question())
