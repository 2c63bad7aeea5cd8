"""The attention memory: what a head recalls, from pattern to meaning."""

from visit import app as ui
from visit.app import memory

ui.ensure_entrypoint("pages/memory.py")
ui.heading("Attention memory", "What does each head look at, and what does it fetch from there?")
chosen = memory.chosen_head(ui.prompt_bar())
memory.head_in_sentences(chosen)
memory.overview(chosen)
memory.drill_down(chosen)
memory.picture(chosen)
memory.pattern(chosen)
memory.life(chosen)
memory.paper(chosen)
memory.files(chosen)
