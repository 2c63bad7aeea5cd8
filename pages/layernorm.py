"""The layer norm page: what a norm does to the words, on one prompt and on many."""

from visit import app as ui
from visit.app import guide_steps, layernorm

ui.ensure_entrypoint("pages/layernorm.py")
ui.heading("Layer norm", "What does a layer norm do to the words that a state reads?")
subject = ui.prompt_bar()
answer = ui.part("reading")
site = layernorm.chosen_site(subject)
guide_steps.on_layernorm(subject, *site)
if ui.shows("norm"):
    with answer:
        layernorm.in_sentences(subject, *site)
if ui.shows("norm"):
    with ui.part("norm"):
        layernorm.one_prompt(subject, *site)
if ui.shows("set"):
    with ui.part("set"):
        layernorm.many_prompts(subject, *site)
