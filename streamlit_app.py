"""The entry point: page config, navigation, sidebar, and the one place that shows a user's mistake."""

import streamlit as st

from visit import ui

st.set_page_config(page_title="VISIT", page_icon=":material/network_node:", layout="wide")
page = st.navigation(
    [st.Page("pages/flow.py", title="Flow graph", icon=":material/account_tree:", url_path="flow", default=True)]
)
st.session_state["visit_entry"] = True
if goto := st.session_state.pop("visit_goto", None):
    st.switch_page(goto, query_params=st.query_params.to_dict())
ui.begin(page.url_path)
ui.sidebar()
with ui.shown_errors():
    page.run()
