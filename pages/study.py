"""The paper's studies: its figures for this model and these prompts, next to what the paper found."""

import streamlit as st

from visit import app as ui
from visit.app import study

ui.ensure_entrypoint("pages/study.py")
st.title("Paper studies", anchor=False)
study.page()
