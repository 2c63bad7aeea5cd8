"""The attention memory: what a head recalls, from pattern to meaning."""

from visit import app as ui
from visit.app import chosen_head, guide_steps, memory_head, memory_overview

ui.ensure_entrypoint("pages/memory.py")
ui.heading("Attention memory", "What does each head look at, and what does it fetch from there?")
chosen = chosen_head.chosen_head(ui.prompt_bar(guide_steps.on_memory))
if ui.shows("reading"):
    with ui.part("reading"):
        memory_head.head_in_sentences(chosen)
if ui.shows("heads"):
    with ui.part("heads"):
        memory_overview.overview(chosen)
if ui.shows("sources"):
    with ui.part("sources"):
        memory_head.drill_down(chosen)
if ui.shows("picture"):
    with ui.part("picture"):
        memory_head.picture(chosen)
if ui.shows("pattern"):
    with ui.part("pattern"):
        memory_head.pattern(chosen)
if ui.shows("life"):
    with ui.part("life"):
        memory_head.life(chosen)
if ui.shows("paper"):
    with ui.part("paper"):
        memory_overview.paper(chosen)
memory_head.files(chosen)
