"""A recording in the app: what pages ask of a model and of its pass, answered from a file, without the model or torch.

A recording that is open goes by its name in the address: that of a shipped one, or the first letters of its file's
sum. To the analyses of `visit.app.cache` it is a model called `recording NAME a` (or `b`, its second prompt): they ask
`answer` instead of computing. What was not recorded is a `NotRecorded`, which the part of the page says in its place.
One that stands in for a model that is being loaded (visit.app.stand_in) is called `stand-in NAME a`.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import streamlit as st

from visit.cache import Store
from visit.errors import NotRecorded, VisitError
from visit.files.shipped_recordings import SHIPPED
from visit.models.catalog import is_hosted
from visit.text.numbers import size_text

if TYPE_CHECKING:
    from visit import Recording
    from visit.models.families import Family

OPENED_BYTES = 192 << 20  # of the recordings that a server holds open, for all its visitors together
HOSTED_UNPACKED = 48 << 20  # bytes that one unpacks to, on a hosted app, and its pattern at most
HOSTED_PATTERN = 128 << 20
WEIGHS = 6  # times what it unpacks to: what is decoded of it, as far as pages do
NAME_LETTERS = 32  # letters of a file's sum that name it
RECORDED_PAGES = ("flow", "compare", "memory", "whatif", "layernorm", "neurons")  # whose numbers a recording holds
_PREFIX, _STANDS_IN = "recording ", "stand-in "


@st.cache_resource(show_spinner=False)
def _opened() -> Store:
    return Store(OPENED_BYTES)


def open_recording(content: bytes) -> str:
    """Read a file and hold it for whoever has its name. Raises `VisitError` for what is no recording, and on a hosted
    app for what would take too much of the memory that all share."""
    from visit import load_recording
    from visit.files.recording_file import unpacked_size

    if is_hosted() and (size := unpacked_size(content)) > HOSTED_UNPACKED:
        raise VisitError(
            f"This recording unpacks to {size_text(size)}, and this hosted app opens at most "
            f"{size_text(HOSTED_UNPACKED)}. Record fewer parts or a shorter prompt, or run VISIT on your own machine."
        )
    with _reading:
        found = load_recording(content)
    if is_hosted() and found.largest_pattern > HOSTED_PATTERN:
        raise VisitError(
            f"The attention patterns of this recording take {size_text(found.largest_pattern)}, and this hosted app "
            f"opens at most {size_text(HOSTED_PATTERN)}. Record a shorter prompt, or run VISIT on your own machine."
        )
    name = found.hash[:NAME_LETTERS]
    _hold(name, found)
    return name


def _hold(name: str, found: Recording) -> None:
    _opened().put(name, found, WEIGHS * found.size + len(found.runs) * found.largest_pattern)


_reading = threading.Lock()  # what one file takes while it is read is bounded; that of thirty at once would not be


def recording_named(name: str) -> Recording:
    """An open recording, or one that is shipped. Raises `VisitError` where this server has none of that name."""
    from visit import load_recording

    found = _opened().find(name)  # names are letters, digits and dashes: visit.app.state
    if found is None:
        file = SHIPPED / f"{name}.visit"
        if not file.is_file():
            raise VisitError(
                "The recording of this link is not open on this server. Open its file again: the view is the same."
            )
        found = load_recording(file)
        _hold(name, found)
    made: Recording = found
    return made


@contextmanager
def told_as_damage(name: str) -> Iterator[None]:
    """While the recording `name` is open: what nobody thought of is told as damage of its file.

    Its texts and numbers are what somebody wrote, and a page looks things up by them. Of a shipped one it would be a
    mistake of the program's, which stays one.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, AssertionError) as error:
        if not name or (SHIPPED / f"{name}.visit").is_file():
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        logging.getLogger("visit").warning("a recording does not fit its page: %s at %s", type(error).__name__, place)
        raise VisitError(
            "This page cannot be drawn: the parts of this recording do not fit together. Record the run again."
        ) from error


# ---- as a model and its pass -----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class RecordedWords(Mapping[int, str]):
    """A vocabulary of which a recording knows the words that occur."""

    known: dict[int, str]

    def __getitem__(self, token: int) -> str:
        return self.known.get(token, f"⟨{token}⟩")

    def __iter__(self) -> Any:
        return iter(self.known)

    def __len__(self) -> int:
        return len(self.known)


@dataclass(frozen=True, eq=False)
class RecordedPass:
    """What pages read of a pass. `pattern` is an array of numpy; there are no logits."""

    prompt: str
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    chat: Any
    pattern: Any
    logits: None = None


def recorded_name(name: str, side: str = "a") -> str:
    """What a recording's side is called where a model's name is asked for."""
    return f"{_PREFIX}{name} {side}"


def stand_in_name(name: str, side: str = "a") -> str:
    """The same, where the recording stands in for its model."""
    return f"{_STANDS_IN}{name} {side}"


def is_recorded(name: str) -> bool:
    return name.startswith((_PREFIX, _STANDS_IN))


def stands_in(name: str) -> bool:
    """Whether a recording of this name stands in for its model."""
    return name.startswith(_STANDS_IN)


def run_named(name: str) -> tuple[Recording, Any]:
    """The recording of such a name, and which of its passes is meant."""
    _, asked, side = name.split(" ")
    found = recording_named(asked)
    if side == "b" and len(found.runs) == 1:
        raise NotRecorded("This recording holds one prompt. Record two to compare them.")
    return found, found.runs["ab".index(side)]


@dataclass(frozen=True, eq=False)
class OpenedModel:
    """What pages ask of a model, as far as a recording says it. `title`: the model's own name."""

    name: str
    title: str
    family: Family
    vocabulary: RecordedWords
    dtype: str
    quantization: str | None
    n_layers: int
    n_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    d_vocab: int
    tokenizer: None = None


_as_models: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()  # a recording that is closed leaves nothing
_as_passes: WeakKeyDictionary[Any, RecordedPass] = WeakKeyDictionary()


def recorded_model(name: str) -> Any:
    """A recording as a model; none that could compute."""
    recording, _ = run_named(name)
    known = _as_models.setdefault(recording, {})
    if name not in known:
        model = recording.model
        words: dict[int, str] = {}
        for run in recording.runs:
            words |= run.words
        sizes = {n: getattr(model, n) for n in ("n_layers", "n_heads", "d_model", "d_head", "d_mlp", "d_vocab")}
        known[name] = OpenedModel(
            name, model.name, model.family, RecordedWords(words), model.dtype, model.quantization, **sizes
        )
    return known[name]


def recorded_pass(name: str) -> RecordedPass:
    _, run = run_named(name)
    if run not in _as_passes:
        chat = None if run.message is None else SimpleNamespace(typed=run.message, added_system=None)
        _as_passes[run] = RecordedPass(run.prompt, run.token_ids, run.tokens, chat, run.pattern)
    return _as_passes[run]


def recorded_lens(name: str) -> Any:
    """The fitted lens that a recording was read through, as far as it says; None for the plain one."""
    about = run_named(name)[0].meta["lens"]
    return None if about is None else SimpleNamespace(name=about["name"], readable_from=about.get("readable_from") or 0)


def answered_at(run: Any) -> tuple[float, float]:
    """(P of the target, P of the best guess) at the recorded position."""
    rows = run.result("predictions")
    rows = rows[rows["pos"] == run.pos]
    return float(rows["target_prob"].iloc[0]), float(rows["prob"].max())


# ---- what analyses are asked -----------------------------------------------------------------------------------------
def recorded_answer(analysis: str, asked: Mapping[str, Any]) -> Any:
    """What an analysis of `visit.app.cache` returns for a recording. Raises `NotRecorded`."""
    try:
        found = _recorded_result(analysis, asked)
    except NotRecorded as problem:
        raise NotRecorded(_LACKS.get(analysis, str(problem))) from problem
    if found is None:
        raise NotRecorded(_LACKS.get(analysis, "It needs the model."))
    return found


def _recorded_result(analysis: str, asked: Mapping[str, Any]) -> Any:
    """The result that an analysis is asked for; None where it cannot be in a recording."""
    recording, run = run_named(asked["name"] if "name" in asked else asked["a"][0])
    lens = bool(asked.get("lens"))
    match analysis:
        case "st_ledger":
            return recording.ledger
        case "st_story" | "st_facts" | "st_alignment":
            return run.result(analysis.removeprefix("st_"))
        case "st_lens_map":
            table = run.result("lens_map fitted" if lens else "lens_map")
            return table[table["pos"].isin(asked["positions"])]
        case "st_graph" | "st_whole_graph":
            return run.graph
        case "st_heads":
            return run.result("heads")
        case "st_head":
            return run.result(f"memory L{asked['layer']}.head{asked['head']}")
        case "st_head_graph":
            return run.result(f"head graph L{asked['layer']}.head{asked['head']}")
        case "st_life":
            return run.result(f"life {asked['source']}")
        case "st_token_shift" if asked["final"] is None:
            norm, layer = asked["norm"], asked["layer"]
            return run.result(f"norm {norm}" if layer is None else f"norm {norm} {layer}")
        case "st_target_shifts" if asked["final"] is None:
            return run.result("norm layers")
        case "st_active" if (asked["kind"], asked["by"]) == ("mlp", "norm"):
            return run.result(f"neurons {asked['layer']}")
        case "st_effects" if (asked["units"], asked["how"], asked["at"]) == ("heads", "zero", "last"):
            return run.result("effects")
        case "st_pairing" | "st_compare" | "st_parting" if recording.pair is not None and not asked["align"]:
            found = recording.pair.result(analysis.removeprefix("st_"))
            if analysis == "st_parting":
                return found[found["pair"].between(asked["first"], asked["last"] - 1)]
            return found
    return None


_LACKS = {
    "st_head": "Of this head only what stands in the map of all heads is recorded. The memory of the heads with the "
    "largest contributions, whatever the sign, is; choose one of them.",
    "st_head_graph": "Of this head no drawing is recorded; of the heads that push hardest there is one.",
    "st_life": "What this token is remembered as in every head was not recorded.",
    "st_token_shift": "The norms are recorded with the lens as everywhere; without the final norm they need the model.",
    "st_target_shifts": "The norms are recorded with the lens as everywhere; without the final norm, the model is "
    "needed.",
    "st_active": "Of every layer's neurons the 30 with the largest coefficient × length are recorded; another order, "
    "and rows of W_O, need the model.",
    "st_effects": "What every head does when it is taken out at this position is recorded at most; other parts and "
    "means need the model.",
    "st_pairing": "The alignment is recorded as it was; corrected, or with another prompt, it needs the model.",
    "st_roles": "The roles of heads are measured by the model, and were not recorded.",
    "st_ablation": "Changes are made by running the model, and this is a recording.",
}
