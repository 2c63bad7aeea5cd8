"""What if: parts of the pass are taken out or replaced, and what the model then says."""

from visit import app as ui
from visit.app import whatif

ui.ensure_entrypoint("pages/whatif.py")
ui.heading("What if", "What would the model say without this head, this neuron, this word? Measured, not read.")
subject = ui.prompt_bar()
whatif.changes(subject)
whatif.all_parts(subject)
whatif.roles_of_words(subject)
whatif.believed(subject)
