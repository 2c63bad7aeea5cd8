"""A user's mistake as a note on the page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

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
    """What a user is told of a mistake; of what a recording lacks, that it was not recorded."""
    if isinstance(problem, NotRecorded):
        st.info(f"Not recorded. {escaped(str(problem))}", icon=":material/inventory_2:")
    else:
        st.error(escaped(str(problem)), icon=":material/error:")
