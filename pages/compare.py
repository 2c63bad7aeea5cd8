"""The compare page: what changes inside the model when one word changes."""

import streamlit as st

from visit import app as ui
from visit.app import compare

ui.ensure_entrypoint("pages/compare.py")
st.title("Compare", anchor=False)
two = compare.two_prompts()
compare.both_answers(two)
compare.parting(two)
compare.both_graphs(two)
