"""The flow page: how the answer came about, in sentences, as a map of the stream, and as the flow graph."""

import streamlit as st

from visit import app as ui
from visit.app import flow, lens_map

ui.ensure_entrypoint("pages/flow.py")
st.title("Flow graph", anchor=False)
subject = ui.prompt_bar()
flow.answer_in_sentences(subject)
lens_map.lens_map(subject)
flow.graph(subject)
