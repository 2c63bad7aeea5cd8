"""The paper's studies: its figures for this model and these prompts, next to what the paper found."""

from visit import app as ui
from visit.app import guide_steps, study

ui.ensure_entrypoint("pages/study.py")
ui.heading("Paper studies", "Do the paper's findings hold for this model? Its figures, made again from your prompts.")
study.page(guide_steps.on_study)
