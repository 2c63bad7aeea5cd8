"""The analyses with their caches: one computation for all users of a server who ask the same. Bounded, frozen."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import streamlit as st

if TYPE_CHECKING:
    from visit.forward import Activations
    from visit.graph import FlowGraph
    from visit.keep import Keep
    from visit.model import Model

RECORD_BYTES = 256 << 20  # of captured passes, for all users of one server together


@st.cache_resource(max_entries=2, show_spinner=False)
def st_model(name: str) -> Model:
    """One model for all users. What was imported is frozen: the garbage collector need not look at it again."""
    from visit.model import load_model

    model = load_model(name)
    gc.collect()
    gc.freeze()
    return model


@st.cache_resource(max_entries=4, show_spinner=False)
def st_ledger(name: str) -> Any:
    from visit.identities import model_ledger

    return model_ledger(st_model(name))


@st.cache_resource(show_spinner=False)
def _records() -> Any:
    from visit.store import Store

    return Store(RECORD_BYTES)


def st_capture(name: str, prompt: str) -> Activations:
    """One pass of one prompt, shared by all users who ask for it."""
    from visit.forward import capture

    model = st_model(name)
    return _records().get((name, model.revision, prompt), lambda: capture(model, prompt))


@st.cache_resource(max_entries=64, show_spinner=False)
def st_lens_map(name: str, prompt: str, target: int, positions: tuple[int, ...]) -> Any:
    from visit.overview import lens_map

    return lens_map(st_model(name), st_capture(name, prompt), target, positions)


@st.cache_resource(max_entries=64, show_spinner=False)
def st_story(name: str, prompt: str, pos: int, target: int, distractor: int | None) -> Any:
    from visit.story import story

    return story(st_model(name), st_capture(name, prompt), pos, target, distractor)


@st.cache_resource(max_entries=64, show_spinner=False)
def st_graph(
    name: str, prompt: str, pos: int, layers: tuple[int, ...] | None, target: int, distractor: int | None, keep: Keep
) -> FlowGraph:
    from visit.graph import build_flow_graph

    return build_flow_graph(st_model(name), st_capture(name, prompt), pos, layers, target, distractor, keep)
