"""The entry point: page config, navigation, sidebar, and the one place that shows a user's mistake."""

import streamlit as st

from visit import app as ui

# a drawing of ours: Streamlit would fetch one of its own icons from a font server
st.set_page_config(page_title="VISIT", page_icon=ui.ICON, layout="wide")
flow = st.Page("pages/flow.py", title="Flow graph", icon=":material/account_tree:")
others = [
    st.Page("pages/compare.py", title="Compare", icon=":material/compare_arrows:"),
    st.Page("pages/whatif.py", title="What if", icon=":material/content_cut:"),
    st.Page("pages/memory.py", title="Attention memory", icon=":material/psychology_alt:"),
    st.Page("pages/layernorm.py", title="Layer norm", icon=":material/filter_alt:"),
    st.Page("pages/neurons.py", title="Neurons", icon=":material/scatter_plot:"),
    st.Page("pages/study.py", title="Paper studies", icon=":material/labs:"),
    st.Page("pages/glossary.py", title="Glossary", icon=":material/menu_book:"),
]


def home() -> None:
    """The bare address. A default page would lose an address of its own, so it is this one that leads to the first."""
    st.switch_page(flow, query_params=st.query_params.to_dict())


page = st.navigation([st.Page(home, title="VISIT", default=True, visibility="hidden"), flow, *others])
now = ui.session()
if now.goto:
    goto, now.goto = now.goto, ""
    st.switch_page(goto, query_params=st.query_params.to_dict())
if page.url_path == "":
    page.run()
st.html(ui.PAGE_STYLE)
ui.open_page(page.url_path)
ui.begin_page()
ui.sidebar()
now.entered = True  # pages look for it: see ui.ensure_entrypoint
with ui.shown_errors():
    page.run()
ui.end_page()
