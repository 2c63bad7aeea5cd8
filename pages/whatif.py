"""What if: parts of the pass are taken out or replaced, and what the model then says."""

from visit import app as ui
from visit.app import every_part, guide_steps, whatif

ui.ensure_entrypoint("pages/whatif.py")
ui.heading("What if", "What would the model say without this head, this word? Measured, not read.")
subject = ui.prompt_bar(guide_steps.on_whatif)
if ui.shows("changes"):
    with ui.part("changes"):
        whatif.changes(subject)
if ui.shows("units"):
    with ui.part("units"):
        every_part.all_parts(subject)
if ui.shows("roles"):
    with ui.part("roles"):
        every_part.roles_of_words(subject)
if ui.shows("believed"):
    with ui.part("believed"):
        every_part.believed(subject)
