"""The neuron page: what neurons read and write, on one prompt, over many, and by word."""

import streamlit as st

from visit import ui
from visit.ui import neurons, neurons_card, neurons_many

ui.ensure_entrypoint("pages/neurons.py")
st.title("Neurons", anchor=False)
subject = ui.prompt_bar()
neurons.active(subject)
card = st.container()
index = neurons.index_of(subject)
prompts = neurons_many.prompts(subject)
found = None if prompts is None else neurons_many.statistics(subject, index, prompts)
if found is not None:
    neurons_many.figure9(subject, *found)
with card:
    neurons_card.card(subject, index, prompts, found)
neurons.search(subject, index)
