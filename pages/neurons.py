"""The neuron page: what neurons read and write, on one prompt, over many, and by word."""

from visit import app as ui
from visit.app import guide_steps, neuron_card, neurons, neurons_over_set

ui.ensure_entrypoint("pages/neurons.py")
ui.heading("Neurons", "Which neurons are active here, and which words do they write?")
subject = ui.prompt_bar()
guide_steps.on_neurons(subject, neurons.chosen_layer(subject), neurons.MOST_ACTIVE)
if ui.shows("active"):
    with ui.part("active"):
        neurons.active(subject)
card = ui.part("card")
with ui.part("set"):
    prompts = neurons_over_set.prompts(subject)
    found = False if prompts is None else neurons_over_set.statistics(subject, prompts)
    known = None if isinstance(found, bool) else found
    if known is not None:
        neurons_over_set.figure9(subject, prompts, *known)
with card:
    neuron_card.card(subject, prompts, known)
if ui.shows("search"):
    with ui.part("search"):
        neurons.word_search(subject, waits=found is True)
