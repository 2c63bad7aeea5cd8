"""The neuron page: what neurons read and write, on one prompt, over many, and by word."""

import streamlit as st

from visit import ui
from visit.ui import neurons

ui.ensure_entrypoint("pages/neurons.py")
st.title("Neurons", anchor=False)
subject = ui.prompt_bar()
neurons.active(subject)
index = neurons.index_of(subject)
found = neurons.statistics(subject, index)
if found is not None:
    neurons.figure9(subject, found[0], found[1])
neurons.card(subject, index, found)
neurons.search(subject, index)
