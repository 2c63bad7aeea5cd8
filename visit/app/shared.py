"""What all sessions of a server share beside the results of analyses: the models in memory, and prompt sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import streamlit as st

if TYPE_CHECKING:
    from visit.models.pool import Shelf
    from visit.runs.prompts import PromptSet

TRUSTED = 0.5  # seconds
SETS_BYTES = 64 << 20  # of prompt sets


@st.cache_resource(show_spinner=False)
def model_shelf() -> Shelf:
    """The models in memory, loaded once for all who ask."""
    from visit.models.pool import Shelf

    return Shelf(trusted=TRUSTED)


@st.cache_resource(show_spinner=False)
def _sets() -> Any:
    from visit.cache import Store

    return Store(SETS_BYTES)


def kept_set(key: Any, make: Callable[[], PromptSet]) -> PromptSet:
    """A prompt set, or what is left of one for a model, made once for all who give the same.

    Twenty thousand pasted prompts would else be read, tokenised and hashed at every click.
    """
    found = _sets().find(key)
    if found is None:
        found = make()
        _sets().put(key, found, 500 * len(found.rows) + sum(len(row.prompt) for row in found.rows))
    return found
