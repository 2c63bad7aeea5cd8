"""The attention memory: what a head recalls, from pattern to meaning."""

from visit import app as ui
from visit.app import memory

ui.ensure_entrypoint("pages/memory.py")
ui.heading("Attention memory", "What does each head look at, and what does it fetch from there?")
chosen = memory.chosen_head(ui.prompt_bar())
with ui.part("reading"):
    memory.head_in_sentences(chosen)
with ui.part("heads"):
    memory.overview(chosen)
with ui.part("sources"):
    memory.drill_down(chosen)
with ui.part("picture"):
    memory.picture(chosen)
with ui.part("pattern"):
    memory.pattern(chosen)
with ui.part("life"):
    memory.life(chosen)
with ui.part("paper"):
    memory.paper(chosen)
memory.files(chosen)
