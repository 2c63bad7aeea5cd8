"""A user's mistake as a note on the page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from visit.app.sessions import session
from visit.errors import NotRecorded, VisitError, told_panics
from visit.text.markdown import escaped


@contextmanager
def shown_errors() -> Iterator[None]:
    """The one place where a `VisitError` becomes a note; what was drawn before it stays.

    So does a panic of a library in Rust, which no `except Exception` of Streamlit's would see: the session would hang.
    """
    try:
        with told_panics("What this page needs"):
            yield
    except VisitError as problem:
        show_problem(problem)


def show_problem(problem: VisitError) -> None:
    """What a user is told of a mistake; of what a recording lacks, that it is not recorded or comes with its model."""
    if isinstance(problem, NotRecorded) and session().standing:
        comes_with_model()
    elif isinstance(problem, NotRecorded):
        st.info(f"Not recorded. {escaped(str(problem))}", icon=":material/inventory_2:")
    else:
        st.error(escaped(str(problem)), icon=":material/error:")


def comes_with_model() -> None:
    """In the place of what a recording lacks that stands in for a model: it is a matter of seconds."""
    st.caption(":material/hourglass_top: This comes when the model is loaded.")
