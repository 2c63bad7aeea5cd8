"""The attention memory: what a head recalls, from pattern to meaning."""

import streamlit as st

from visit import app as ui
from visit.app import memory
from visit.app import memory as memory_head
from visit.app import memory as memory_more

ui.ensure_entrypoint("pages/memory.py")
st.title("Attention memory", anchor=False)
chosen = memory.chosen_head(ui.prompt_bar())
memory_head.story(chosen)
memory.overview(chosen)
memory_head.drill_down(chosen)
memory_more.picture(chosen)
memory_more.pattern(chosen)
memory_more.life(chosen)
memory_more.paper(chosen)
memory_more.files(chosen)
