"""Two recordings on Compare: side by side, each as it was recorded. Nothing is subtracted: no model is there to ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from visit.app import graph_panel as graphs
from visit.app.cached_flow import st_graph, st_opened, st_story
from visit.app.opened import recorded_line, upload_recording
from visit.app.recorded import recorded_name, recording_named, run_named
from visit.app.sessions import change, draw_anew, state
from visit.app.widgets import beside, plain, sentences
from visit.errors import VisitError
from visit.text.markdown import escaped
from visit.text.visible import visible

if TYPE_CHECKING:
    from visit import Recording


def lay_beside() -> None:
    """The open recording and a second one, or the field that takes the second."""
    recording = recording_named(state().recording)
    recorded_line(recording)
    name = state().compare.recording_b
    other = None
    if name:
        try:
            other = recording_named(name)
        except VisitError as problem:
            st.info(escaped(str(problem)), icon=":material/inventory_2:")
    if other is None:
        st.info("This recording holds one prompt, so nothing differs yet. Lay another recording beside it, or record "
                "two prompts in one file: only then is each part of one compared with its twin in the other.",
                icon=":material/inventory_2:")  # fmt: skip
        if (found := upload_recording("recording_b_file")) is not None:
            change(recording_b=found)
            draw_anew()
        return
    st.info(plain(why_not_subtracted(recording, other)), icon=":material/inventory_2:")
    st.button("Take B away", icon=":material/close:", type="tertiary", key="recording_b_close", on_click=change,
              kwargs={"recording_b": ""})  # fmt: skip
    with beside("two_recordings"):
        columns = st.columns(2, gap="medium")
    for column, side, key in zip(columns, "AB", (state().recording, name), strict=True):
        with column:
            _recorded_side(side, key)


def why_not_subtracted(a: Recording, b: Recording) -> str:
    """Why two recordings stand beside each other and no more."""
    one, two = (f"{r.model.name} ({str(r.model.revision or 'no revision')[:19]})" for r in (a, b))
    if (a.model.name, a.model.revision) != (b.model.name, b.model.revision):
        return (
            f"These are recordings of two models: A of {one}, B of {two}. Their heads and neurons do not correspond, "
            "so nothing is subtracted: each stands as it was recorded."
        )
    return (
        f"Two recordings of {one}. What differs, part by part, is in a recording of both prompts in one file, or takes "
        "the model; here each stands as it was recorded."
    )


def _recorded_side(side: str, key: str) -> None:
    from visit.drawing.draw import flow_data

    name = recorded_name(key)
    recording, run = run_named(name)
    about = name, run.prompt, run.pos, run.target, run.distractor
    st.markdown(f"**{side}** {plain(recording.model.name)}: {plain(visible(run.prompt[:200]))}")
    sentences(st_story(*about), f"story_{side}", lambda node: None)
    shown = graphs.levels("", run.graph.meta["layers"], st_opened(None, about))
    graph = st_graph(*about, None, None, (), influence=False)  # type: ignore[arg-type]
    graphs.show(flow_data(graph, shown, color_by=state().graph.color), f"flow_{side.lower()}")
