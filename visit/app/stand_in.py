"""Which shipped recording stands in for a model that is not in memory yet: the first picture, without torch.

A page of a question that a shipped recording answers is drawn from it, under a name that says so
(`recorded.stands_in`): nothing is refused then, for the model comes (visit.app.takeover). It stands in
1. on the pages `STAND_IN_PAGES`, for its own question only,
2. while no control asks for what it does not hold,
3. of the weights that lie here, as `weights.json` knows them,
4. until the model is in memory, or has taken its place once.
"""

from __future__ import annotations

import hashlib
import json
import sys
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from visit.app.cache import st_pass, while_kept
from visit.app.recorded import recording_named, run_named, stand_in_name
from visit.app.sessions import session, state
from visit.app.shared import model_shelf
from visit.app.state import CONTROLS, value_of
from visit.app.subject import Subject
from visit.models import wheels
from visit.models.catalog import LISTED, MINI, MINI_FOLDER

if TYPE_CHECKING:
    from visit.files.shipped_recordings import ShippedRecording

STAND_IN_PAGES = ("flow", "compare")
_ASKED = ("model", "prompt", "target", "distractor", "prompt_b")  # the question itself
# what a recording answers whatever it is; of `width` and the like, what needs the influence is looked at below
_ANSWERED = frozenset((
    "pos", "pos_b", "node", "detail", "zoom", "find", "traced", "unfolded", "map_color", "color", "width", "sort",
    "parts", "whole", "projector", "opened", "lesson", "step", "first", "view", "apart",
))  # fmt: skip


@st.cache_resource(show_spinner=False)
def taken_over() -> set[str]:
    """The recordings whose models have taken their places on this server."""
    return set()


def standing_in() -> str:
    """The recording that stands in on the page of this run, by its name; empty where the model itself is shown."""
    now = session()
    if now.standing is None:
        now.standing = stand_in_now()
        now.stood = now.standing or now.stood
    return now.standing


def stand_in_now() -> str:
    """The same as it is at this moment: in a part of the page that runs by itself it may be over."""
    now = session()
    if now.page not in STAND_IN_PAGES or state().recording or now.pending or state().graph.influence:
        return ""
    changed = {name for name, one in CONTROLS.items() if value_of(state(), name) != one.default}
    if changed - {*_ASKED, *_ANSWERED}:
        return ""
    name = answered_by()
    if not name or name in taken_over() or _in_memory(state().model) or not _same_weights(state().model):
        return ""
    return name if _holds_view(name) else ""


def answered_by() -> str:
    """The shipped recording of the question on screen, by its name; empty where there is none."""
    from visit.files.shipped_recordings import ShippedRecording, shipped_recordings

    model, prompt, target, distractor, prompt_b = (value_of(state(), name) for name in _ASKED)
    two = session().page == "compare"
    if two and not prompt_b:  # a copy of A: the recording of one prompt is none of two
        return ""
    asked = ShippedRecording(model, prompt, target, distractor, prompt_b if two else "")
    path = shipped_recordings().get(asked)
    return "" if path is None else path.stem


def question_of(name: str) -> ShippedRecording:
    """What a shipped recording was asked."""
    from visit.files.shipped_recordings import shipped_recordings

    return next(asked for asked, path in shipped_recordings().items() if path.stem == name)


def stand_in_subject(name: str, side: str = "a") -> Subject:
    """What the page is about, from the recording that stands in."""
    called = stand_in_name(name, side)
    (model, acts), run = st_pass(called, ""), run_named(called)[1]
    session().positions["" if side == "a" else "_b"] = -1
    key = called, acts.prompt
    return Subject(key, run.pos, run.target, run.distractor, *while_kept(key, model, acts))


def _holds_view(name: str) -> bool:
    """Whether the positions and the node of the address are recorded."""
    runs = recording_named(name).runs
    places = {"pos": runs[0], "pos_b": runs[-1]}
    if any(value_of(state(), place) not in (-1, len(run.tokens) - 1) for place, run in places.items()):
        return False
    node = state().graph.node
    return not node or session().page == "compare" or node in runs[0].graph.by_id


def _in_memory(model: str) -> bool:
    # else torch would be imported for it; a module that is being read, and waits for torch itself, has no Shelf yet
    return hasattr(sys.modules.get("visit.models.pool"), "Shelf") and model in model_shelf().names


def _same_weights(model: str) -> bool:
    """Whether the weights that lie here are those of the recordings. Of a downloaded file its pinned sum is known."""
    if model == MINI:
        file = MINI_FOLDER / "model.safetensors"
        about = file.stat()
        return _sum_of_file(file, about.st_size, about.st_mtime_ns) == _recorded_sums().get(model)
    wheel = LISTED[model].wheel if model in LISTED else None
    if wheel is None or wheel.file_sha256 != _recorded_sums().get(model) or wheels.find(model) is None:
        return False
    return state().reads == "plain" or not _has_lens(model)


def _has_lens(model: str) -> bool:
    """Whether a lens lies in the cache through which a larger model might be read, by the heads of the files alone."""
    from visit.cache import cache_folder

    for file in (cache_folder() / "lenses").glob("[0-9a-f]*.safetensors"):
        with file.open("rb") as data:
            size = int.from_bytes(data.read(8), "little")
            head = data.read(min(size, 1 << 20))
        if f'\\"model\\": \\"{model}\\"'.encode() in head:
            return True
    return False


@lru_cache(1)
def _recorded_sums() -> dict[str, str]:
    from visit.files.shipped_recordings import SHIPPED, WEIGHT_SUMS

    return dict(json.loads((SHIPPED / WEIGHT_SUMS).read_text(encoding="utf-8")))


@lru_cache(4)
def _sum_of_file(file: Path, size: int, changed: int) -> str:
    """The SHA-256 sum of a file that has this size and time of its last change."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
