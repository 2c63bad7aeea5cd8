"""The attention memory: what a head recalls, from pattern to meaning."""

from visit import app as ui
from visit.app import guide_steps, memory

ui.ensure_entrypoint("pages/memory.py")
ui.heading("Attention memory", "What does each head look at, and what does it fetch from there?")
chosen = memory.chosen_head(ui.prompt_bar(guide_steps.on_memory))
if ui.shows("reading"):
    with ui.part("reading"):
        memory.head_in_sentences(chosen)
if ui.shows("heads"):
    with ui.part("heads"):
        memory.overview(chosen)
if ui.shows("sources"):
    with ui.part("sources"):
        memory.drill_down(chosen)
if ui.shows("picture"):
    with ui.part("picture"):
        memory.picture(chosen)
if ui.shows("pattern"):
    with ui.part("pattern"):
        memory.pattern(chosen)
if ui.shows("life"):
    with ui.part("life"):
        memory.life(chosen)
if ui.shows("paper"):
    with ui.part("paper"):
        memory.paper(chosen)
memory.files(chosen)
