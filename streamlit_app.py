"""The entry point: page config, navigation, sidebar, and the one place that shows a user's mistake.

`streamlit run streamlit_app.py` reads it in two ways: once as a module, for the server `app`, which imports what the
first page needs while the first browser still loads Streamlit itself; and as `__main__` in every run of a page. Where a
platform knows the second way only, the pages are the same, and the first of them is there half a second later.
"""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import streamlit as st


def show_page() -> None:
    """The page of the address, for one visitor."""
    from visit import app as ui

    # a drawing of ours: Streamlit would fetch one of its own icons from a font server
    st.set_page_config(page_title="VISIT", page_icon=ui.ICON, layout="wide")
    start = st.Page("pages/home.py", title="Start", icon=":material/home:", default=True, url_path="start")
    flow = st.Page("pages/flow.py", title="Flow graph", icon=":material/account_tree:")
    others = [
        st.Page("pages/compare.py", title="Compare", icon=":material/compare_arrows:"),
        st.Page("pages/whatif.py", title="What if", icon=":material/content_cut:"),
        st.Page("pages/trace.py", title="Causal trace", icon=":material/route:"),
        st.Page("pages/heads.py", title="Heads over a set", icon=":material/grid_on:"),
        st.Page("pages/memory.py", title="Attention memory", icon=":material/psychology_alt:"),
        st.Page("pages/layernorm.py", title="Layer norm", icon=":material/filter_alt:"),
        st.Page("pages/neurons.py", title="Neurons", icon=":material/scatter_plot:"),
        st.Page("pages/study.py", title="Paper studies", icon=":material/labs:"),
        st.Page("pages/learn.py", title="Learn", icon=":material/school:"),
        st.Page("pages/room.py", title="Class room", icon=":material/groups:"),
        st.Page("pages/glossary.py", title="Glossary", icon=":material/menu_book:"),
    ]

    def home() -> None:
        """The start page under its file's name: as the default page it has no address but the bare one."""
        st.switch_page(start)

    page = st.navigation([start, flow, *others, st.Page(home, url_path="home", visibility="hidden")], expanded=True)
    now = ui.session()
    if now.goto:
        goto, now.goto = now.goto, ""
        st.switch_page(goto, query_params=st.query_params.to_dict())
    if page.url_path == "home":
        page.run()
    if page.url_path == "" and ui.carries_state(
        st.query_params
    ):  # a link as it was shared before there was a start page
        st.switch_page(flow, query_params=st.query_params.to_dict())
    st.html(ui.PAGE_STYLE)
    ui.open_page(page.url_path)
    ui.begin_page()
    ui.sidebar()
    ui.asked_dialog()
    now.entered = True  # pages look for it: see ui.ensure_entrypoint
    with ui.turns().through(), ui.shown_errors(), ui.told_as_damage(now.state.recording):
        ui.tell_difference()
        ui.begin_lesson(page.url_path)
        page.run()
    ui.await_model()
    ui.end_page()
    ui.begin_preload()
    ui.figures_dialog()


# ---- the server ------------------------------------------------------------------------------------------------------
@asynccontextmanager
async def started(_: st.App) -> AsyncIterator[None]:
    """While the server lives. Nobody waits for what is imported ahead."""
    threading.Thread(target=_import_ahead, daemon=True, name="ahead").start()
    asyncio.get_running_loop().call_later(0.2, _open_browser)  # it listens by then
    yield


def _import_ahead() -> None:
    from visit.app.ahead import import_ahead  # visit.app itself is most of it

    import_ahead()


def _open_browser() -> None:
    """As Streamlit does where it is given pages alone, unless it is told that nobody sits here."""
    import webbrowser

    from streamlit.web.server.server_util import get_display_address, get_url

    if not st.get_option("server.headless"):
        address = st.get_option("server.address")
        host = get_display_address(address) if address else st.get_option("browser.serverAddress")
        threading.Thread(target=webbrowser.open, args=(get_url(host),), daemon=True, name="browser").start()


if __name__ == "__main__":
    show_page()
else:
    app = st.App(__file__, lifespan=started)
