"""What a session shows, and its address: a frozen record of what pages share, and one of each page.

One place to edit per control: its field, with a type, a default and, for choices, their names on screen. From these
follow the widget (`field`, `choice`), the parser of the address and its writer. A field stands in the address under
its name while it has not its default. An address comes from anybody: a value that cannot be used is replaced by its
default, and a note says so.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlencode
from uuid import uuid4

import streamlit as st

from visit.errors import NotRecorded, VisitError, told_panics
from visit.lessons.room import Tries
from visit.models.catalog import MINI, check_hosted, first_model
from visit.text.markdown import escaped
from visit.text.packed import packed, unpacked
from visit.text.visible import visible

PROMPT_CHARACTERS = 8_000
FIELD_CHARACTERS = 4_000  # of every other field: a hundred pinned nodes
ADDRESS_CHARACTERS = 1_900  # of a query that is written as it is; a longer one is packed (visit.text.packed)
PACKED = "z"  # the parameter that holds a packed query
NOTES_TOLD = 5  # of a link, that are told one by one
PASTED_CHARACTERS = 100_000  # of a prompt as it is typed: what is longer is said to be, and not kept
FIGURES_DIALOG = "figures"  # its name in `Session.dialog`
DEFAULT_PROMPT = "The capital of Japan is the city of"
DEFAULT_PROMPT_B = "The capital of France is the city of"
# the last b: a node that only prompt B has (visit.analyses.graph_difference)
_NODE_ID = r"(L\d{1,4}(-\d{1,4})?(\.[a-z_]{1,20}\d{0,6}){1,2}(\.rest|\.gate|\.up)?b?|ln_final|logits)"
_CHANGE = r"(zero|mean|from|(scale|add)-?\d{1,3}(\.\d{1,3})?)@(all|-?\d{1,6})"  # how, and at which position
_PART_NAME = r"[a-z][a-z0-9_-]{0,29}"  # of a page, opened by choice
_RECORDING = r"[a-z0-9][a-z0-9-]{0,39}"  # that is shipped, or the first letters of a file's sum
_RANGES = r"\d{1,4}(-\d{1,4})?(\s*,\s*\d{1,4}(-\d{1,4})?)*"


# ---- how a value is read ---------------------------------------------------------------------------------------------
def _short_text(text: str) -> str:
    if len(text) > 200:
        raise ValueError("it is longer than 200 characters")
    return text


def _prompt(text: str) -> str:
    if len(text) > PROMPT_CHARACTERS:
        raise ValueError(f"it has {len(text):,} characters; at most {PROMPT_CHARACTERS:,} are read from a link")
    return text


def _model(text: str) -> str:
    check_hosted(text)
    if len(text) > 300 or not text.strip() or not text.isprintable():
        raise ValueError("it is no name of a model")
    return text


def _other_model(text: str) -> str:
    return _model(text) if text else ""


def _of_form(pattern: str, refusal: str) -> Callable[[str], str]:
    """Reads a text of this form, or none."""

    def read(text: str) -> str:
        if len(text) > FIELD_CHARACTERS:
            raise ValueError(f"it is longer than {FIELD_CHARACTERS:,} characters")
        text = text.strip()
        if text and not re.fullmatch(pattern, text, re.ASCII):
            raise ValueError(refusal.format(visible(text[:30])))
        return text

    return read


def _number(refusal: str, pattern: str = r"\d{1,6}") -> Callable[[str], int | None]:
    """Reads a whole number, or none for the default."""

    def read(text: str) -> int | None:
        if text and not re.fullmatch(pattern, text, re.ASCII):
            raise ValueError(refusal.format(visible(text[:30])))
        return int(text) if text else None

    return read


def _within(least: int, most: int) -> Callable[[str], int | None]:
    """Reads a whole number between two, or none for the default."""

    def read(text: str) -> int | None:
        found = _number(f"it is a whole number from {least} to {most}")(text)
        if found is not None and not least <= found <= most:
            raise ValueError(f"it is a whole number from {least} to {most}")
        return found

    return read


def _decimal(text: str) -> float | None:
    """Reads a decimal above 0, or none for the default."""
    if text and not (re.fullmatch(r"\d{1,3}(\.\d{1,3})?", text, re.ASCII) and float(text) > 0):
        raise ValueError(f"“{visible(text[:30])}” is no number above 0 and below 1,000")
    return float(text) if text else None


def _one_of(values: tuple[str, ...]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in values:
            raise ValueError(f"it is one of {', '.join(values)}")
        return text

    return read


def _switch(text: str) -> bool:
    if text not in ("", "1"):
        raise ValueError("it is 1 or nothing")
    return text == "1"


def amount(text: str) -> Any:
    """A pruning amount as written in a field: "12", "80 %" or "0.8" (a share), "6,6" (positive, negative), "all"."""
    text = text.strip().lower()
    if text in ("all", ""):
        return None
    if re.fullmatch(r"\d{1,6}", text, re.ASCII):
        return int(text)
    if pair := re.fullmatch(r"(\d{1,6})\s*,\s*(\d{1,6})", text, re.ASCII):
        return int(pair[1]), int(pair[2])
    if share := re.fullmatch(r"(\d{1,3}(?:\.\d{1,6})?)\s*(%?)", text, re.ASCII):
        part = float(share[1]) / (100 if share[2] else 1)
        if 0 < part <= 1:
            return part
    raise VisitError(f"An amount is a number, a share such as 80 %, a pair such as 6,6, or all; got “{text[:30]}”")


def _amount_text(text: str) -> str:
    amount(_short_text(text))
    return text.strip()


_MANY = "it is a whole number from 1"
ModelName = Annotated[str, _model]
PromptText = Annotated[str, _prompt]
Position = Annotated[int, _number("“{}” is no position; positions are whole numbers", r"-?\d{1,6}")]
Positive = Annotated[int, _number(_MANY, r"(?!0+$)\d{1,6}")]
Amount = Annotated[str, _amount_text]
Ranges = Annotated[str, _of_form(_RANGES, "“{}” is no list of layers; write 3, 3-5 or 0,3,7-9")]
NodeText = Annotated[str, _of_form(_NODE_ID, "it is no node; nodes look like L3.head5")]


# ---- what the pages show ---------------------------------------------------------------------------------------------
def control(default: Any, *labels: str, forgets: tuple[str, ...] = ()) -> Any:
    """A field's default; what its choices are called on screen; the fields that a new value makes meaningless."""
    return dataclasses.field(default=default, metadata={"labels": labels, "forgets": forgets})


DRAWN = (
    "node",
    "detail",
    "pin",
    "align",
    "traced",
    "subject",
    "cell",
)  # what is chosen in a drawing of one prompt, or two
LOOKED_AT = (*DRAWN, "unfolded", "first", "head", "source")


@dataclass(frozen=True)
class Graph:
    """The flow graph, of one prompt or of two."""

    layers: Ranges = ""
    heads: Amount = "all"
    values: Amount = "2"
    neurons: Amount = "12"
    rows: Amount = "12"
    by: Literal["norm", "contribution", "influence", "pattern"] = control(
        "norm", "length", "contribution", "influence", "attention"
    )
    pin: Annotated[
        str, _of_form(rf"(,|-?{_NODE_ID}(,|$)){{0,100}}", "it is no list of nodes; nodes look like L3.head5")
    ] = ""
    detail: Annotated[
        str,
        _of_form(
            r"(states|words|everything)|(\d{1,4}[swe])(,\d{1,4}[swe])*",
            "it is states, words, everything, or per layer such as 3w,5e",
        ),
    ] = ""
    color: Literal["rank", "probability", "entropy", "contribution", "influence"] = control(
        "rank", "rank of the target", "probability of the target", "entropy", "contribution to the target",
        "influence on the target",
    )  # fmt: skip
    width: Literal["norm", "contribution", "influence"] = control("norm", "length", "contribution", "influence")
    sort: Literal["norm", "contribution", "influence", "index"] = control(
        "norm", "length", "contribution", "influence", "index"
    )
    parts: Literal["both", "attention", "mlp"] = "both"
    zoom: Annotated[int, _within(20, 400)] = 100  # percent, of every drawing
    find: str = ""  # the word that is looked for in a drawing
    traced: NodeText = ""  # the node whose sum is traced back
    map_color: Literal["target", "rank", "top"] = "target"  # of the lens map; what it is called depends on the target
    unfolded: Annotated[str, _of_form(r"\d{1,4}(,\d{1,4}){0,99}", "it is no list of folds; they look like 3,12")] = ""
    carried: bool = False  # heads, memory values and attention outputs are read through the fitted lens, too
    node: NodeText = ""

    @property
    def pins(self) -> tuple[str, ...]:
        """The nodes that are kept, or with a minus hidden, whatever the pruning says."""
        return tuple(pin for pin in self.pin.split(",") if pin)

    @property
    def influence(self) -> bool:
        """Whether something on screen needs the influence of what is drawn: one more run, backward."""
        return "influence" in (self.by, self.color, self.width, self.sort)

    @property
    def look(self) -> dict[str, Any]:
        """Options of every drawing but the colours of its nodes."""
        return {"width_by": self.width, "sort_by": self.sort, "parts": self.parts}


@dataclass(frozen=True)
class Compare:
    """The second prompt, empty for a copy of the first, and how two are compared."""

    prompt_b: PromptText = control("", forgets=("pos_b", "target_b", "distractor_b", *LOOKED_AT))
    model_b: Annotated[str, _other_model] = control("", forgets=("pos_b", "layers", *LOOKED_AT))
    recording_b: Annotated[str, _of_form(_RECORDING, "it is no name of a recording")] = ""  # beside the open one
    pos_b: Position = -1
    target_b: str = ""
    distractor_b: str = ""
    align: Annotated[
        str,
        _of_form(r"((\d{1,6}:\d{0,6}|:\d{1,6})(,|$)){0,200}", "corrections of the alignment are written 3:5,4:,:6"),
    ] = ""
    view: Literal["graphs", "difference"] = control("graphs", "Two graphs", "The difference, B − A")
    apart: Literal["js", "apart", "cosine", "cosine_centred"] = "js"
    patch: Literal["resid", "attn_out", "mlp_out", "heads", "heads_all"] = control(
        "resid", "the stream before a block", "attention output", "MLP output", "heads at the last position",
        "heads at every position",
    )  # fmt: skip
    patching: Literal["auto", "quick", "exact"] = control(
        "auto", "as it takes least time", "quick: the largest measured", "all measured"
    )


@dataclass(frozen=True)
class Memory:
    """The attention memory."""

    head: Annotated[str, _of_form(r"L\d{1,4}\.head\d{1,4}", "it is no head; heads look like L4.head1")] = ""
    measure: Literal[
        "contribution", "norm", "share", "intersection_attn_out", "intersection_block", "intersection_final", "rank"
    ] = control(
        "contribution", "contribution", "norm", "share of the layer's lengths",
        "I₅₀ with attn_out", "I₅₀ with the block", "I₅₀ with the last state", "rank of the target",
    )  # fmt: skip
    order: Literal["moved", "pattern", "contribution", "source_pos"] = control(
        "moved", "by what it moves", "by attention", "by |contribution|", "by position"
    )
    sink: Literal["shown", "aside"] = control("shown", "shown", "set aside")
    gain: Literal["plain", "folded"] = control("plain", "as they pair with ln1_out", "with the norm's gain")
    source: Annotated[int | None, _number("it is no position; positions are whole numbers from 0")] = None
    life: Literal["own", "head"] = control(
        "own", "probability of its own token (Fig. 18)", "words in common with its head's output (Fig. 17)"
    )


@dataclass(frozen=True)
class Norms:
    """The layer norms."""

    norm: Literal["ln1", "post_attn", "ln2", "post_mlp", "final"] = control(
        "ln1", "before attention (ln1)", "after attention", "before the MLP (ln2)", "after the MLP", "the final norm"
    )
    lens: Literal["auto", "without"] = control("auto", "as everywhere", "without the final norm (Fig. 23)")
    mean: Literal["probabilities", "vector"] = control(
        "probabilities", "mean of the probabilities", "probabilities of the mean vector"
    )
    function_words: Annotated[
        str, _of_form(r"([+-]\S{1,40}(\s|$)){0,500}", "words more and less than the list has are written +well -thing")
    ] = ""


@dataclass(frozen=True)
class Neurons:
    """The neurons."""

    neuron: Annotated[
        str, _of_form(r"L\d{1,4}\.mlp_value\d{1,6}", "it is no neuron; neurons look like L3.mlp_value17")
    ] = ""
    kind: Literal["mlp", "attention"] = control("mlp", "MLP neurons", "rows of W_O")
    nsort: Literal["norm", "contribution", "influence", "coefficient"] = control(
        "norm", "by |coefficient| × ‖row‖", "by |contribution|", "by |influence|", "by |coefficient|"
    )
    activity: Literal["activation", "weighted"] = control(
        "activation", "|activation| (the paper)", "|activation| × ‖row‖ (the authors' code)"
    )
    nshare: Literal["1", "2.44", "5", "10"] = control("2.44", "1 %", "2.44 %", "5 %", "10 %")
    always: Annotated[int, _within(50, 100)] = 85  # percent of the prompts
    word: str = ""


@dataclass(frozen=True)
class Studies:
    """The paper's studies."""

    figures: Annotated[
        str,
        _of_form(r"(\d{1,2}[ab]?|tables)(,(\d{1,2}[ab]?|tables)){0,40}", "figures are listed as 2b,5,tables"),
    ] = ""
    count: Literal["20", "50", "100", "200", "500", "all"] = "100"
    correct: Literal["split", "only", "all"] = control(
        "split", "all, and apart by right and wrong", "only those answered correctly", "all, targets ignored"
    )
    k: Positive = 50
    blocks: Ranges = ""
    ranks: Annotated[int | None, Positive.__metadata__[0]] = None
    sources: Positive = 3
    second: Literal["rbo", "none"] = control("rbo", "rank-biased overlap", "none")
    draws: Positive = 1000
    over: Annotated[str, _of_form(r"[0-9a-f]{12}", "it is no name of a study")] = ""  # laid over this one
    seed: Annotated[int, _number("it is no seed; seeds are whole numbers from 0")] = 0


@dataclass(frozen=True)
class WhatIf:
    """What is changed in the pass, and the map of what every part's removal costs."""

    edits: Annotated[
        str,
        _of_form(
            rf"(;|!?[A-Za-z0-9_.]{{1,60}}~{_CHANGE}(;|$)){{0,40}}",
            "it is no list of changes; they look like L3.head5~zero@-1;L2.mlp_out~scale0.5@all",
        ),
    ] = ""
    units: Literal["heads", "neurons", "values"] = control(
        "heads", "all heads", "the 100 most influential neurons", "the 100 most influential memory values"
    )
    show: Literal["effect", "influence", "contribution"] = control(
        "effect", "effect: lost without it", "influence: foreseen", "contribution: added directly"
    )
    replaced: Literal["zero", "mean"] = control("zero", "by zero", "by its mean over this prompt")
    where: Literal["last", "all"] = control("last", "at this position", "at every position")
    more: Literal["0", "10", "20", "40"] = control("0", "none", "10 words", "20 words", "40 words")
    force: str = ""


@dataclass(frozen=True)
class Trace:
    """The causal trace: what is made unreadable, how, and the cell that is looked at."""

    subject: str = ""  # a text in the prompt, positions as @3,4; empty: guessed
    samples: Positive = 10
    noise: Annotated[float, _decimal] = 3.0
    noise_seed: Annotated[int, _number("it is no seed; seeds are whole numbers from 0")] = 0
    window: Annotated[int | None, Positive.__metadata__[0]] = None
    cell: Annotated[
        str, _of_form(r"(resid|attn_out|mlp_out)\.\d{1,4}\.\d{1,6}", "it is no cell; cells look like resid.12.3")
    ] = ""


@dataclass(frozen=True)
class Heads:
    """One's own question over a set: which set, which parts, what stands in their place, what the map shows."""

    heads_set: Literal["facts", "names", "ioi", "plain", "repeats", "world", "own"] = "ioi"
    asks: Literal["heads", "layers", "neurons"] = control(
        "heads", "every head", "attention and MLP of every layer", "the 100 most influential neurons"
    )
    instead: Literal["zero", "mean", "from"] = control(
        "zero", "nothing (zero)", "its mean over the set", "its values in the partner text"
    )
    number: Literal["effect", "influence", "contribution"] = control(
        "effect", "effect: the answer without it", "influence: foreseen", "contribution: added directly"
    )
    lines: Literal["16", "48", "100", "all"] = "48"
    first_token: bool = False
    set_b: Literal["", "facts", "names", "ioi", "plain", "repeats", "world"] = ""


@dataclass(frozen=True)
class Paths:
    """Path patching over the set of the page of heads: where paths end, which input receives, at which position."""

    ends: Literal["logits", "movers", "own"] = control(
        "logits", "the logits", "the movers found above", "heads of your own"
    )
    receiving: Annotated[
        str,
        _of_form(
            r"(L\d{1,4}\.(kv_)?head\d{1,4}(\s*,\s*|$)){0,40}",
            "it is no list of heads; they look like L23.head0,L23.head1",
        ),
    ] = ""
    into: Literal["q", "k", "v"] = control("q", "queries", "keys", "values")
    path_at: str = ""  # a column of the set that names the position; empty: the one looked at
    path_to: str = ""  # which receiver is shown


@dataclass(frozen=True)
class State:
    """What pages share, and what each page shows for itself."""

    model: ModelName = control(MINI, forgets=("pos", "layers", "recording", *LOOKED_AT))
    prompt: PromptText = control(DEFAULT_PROMPT, forgets=("pos", "target", "distractor", *LOOKED_AT))
    chat: bool = control(False, forgets=("pos", "pos_b", *LOOKED_AT))
    system: PromptText = control("", forgets=("pos", "pos_b", *LOOKED_AT))
    recording: Annotated[str, _of_form(_RECORDING, "it is no name of a recording")] = control(
        "", forgets=("pos", "target", "distractor", "layers", "edits", *LOOKED_AT)
    )  # in place of a model
    pos: Position = -1
    target: str = ""
    distractor: str = ""
    reads: Literal["auto", "plain", "fitted"] = control(
        "auto", "as it reads best", "plain", "fitted"
    )  # through which lens
    whole: bool = False  # lists of top words leave out what is no whole word: pieces, signs, white space, bytes
    projector: bool = False  # large type, the main part of a page alone
    layer: Annotated[int | None, _number("it is no layer; layers are whole numbers from 0")] = None
    set: Literal["facts", "names", "ioi", "plain", "repeats", "world", "own"] = "facts"
    answered: bool = False
    lesson: Annotated[str, _of_form(r"[a-z0-9][a-z0-9-]{0,39}", "it is no name of a lesson")] = ""
    step: Annotated[int, _number("“{}” is no step; steps are whole numbers from 0", r"\d{1,2}")] = 0  # of the lesson
    guide: Annotated[int, _number("the guide has the steps 1 to 5", "[1-5]")] = 0  # 0: it is off
    opened: Annotated[
        str,
        _of_form(
            rf"{_PART_NAME}(,{_PART_NAME}){{0,19}}", "it is no list of parts of a page; they look like pattern,life"
        ),
    ] = ""
    first: Annotated[
        str,
        _of_form(r"([a-z]{1,12}-\d{1,6}(,|$)){0,8}", "where parts that are paged begin is written map-12,pattern-0"),
    ] = ""
    graph: Graph = Graph()
    compare: Compare = Compare()
    memory: Memory = Memory()
    norms: Norms = Norms()
    neurons: Neurons = Neurons()
    studies: Studies = Studies()
    whatif: WhatIf = WhatIf()
    trace: Trace = Trace()
    heads_page: Heads = Heads()
    paths: Paths = Paths()


@dataclass(frozen=True)
class Control:
    """One field of the state."""

    page: str  # the field of `State` that holds its record, empty where pages share it
    default: Any
    read: Callable[[str], Any]
    choices: dict[str, str]  # value → its name on screen
    forgets: tuple[str, ...]


def _controls(record: type, page: str = "") -> Iterator[tuple[str, Control]]:
    hints = get_type_hints(record, include_extras=True)
    for one in fields(record):
        hint = hints[one.name]
        if dataclasses.is_dataclass(hint):
            yield from _controls(hint, one.name)  # type: ignore[arg-type]
            continue
        values = get_args(hint) if get_origin(hint) is Literal else ()
        labels = one.metadata.get("labels") or values
        if get_origin(hint) is Annotated:
            read = hint.__metadata__[0]
        else:
            read = _one_of(values) if values else _switch if hint is bool else _short_text
        choices = dict(zip(values, labels, strict=True))
        yield one.name, Control(page, one.default, read, choices, one.metadata.get("forgets", ()))


CONTROLS = dict(_controls(State))


def value_of(state: State, name: str) -> Any:
    """The field that stands in the address under `name`."""
    page = CONTROLS[name].page
    return getattr(getattr(state, page) if page else state, name)


def with_values(state: State, values: Mapping[str, Any]) -> State:
    """The state with other values of fields, each named as in the address."""
    for page in {CONTROLS[name].page for name in values}:
        found = {name: value for name, value in values.items() if CONTROLS[name].page == page}
        state = replace(state, **({page: replace(getattr(state, page), **found)} if page else found))
    return state


# ---- the address -----------------------------------------------------------------------------------------------------
def parse(params: Mapping[str, str]) -> tuple[State, list[str]]:
    """(state, notes): one note for every value that could not be used; of many the first, and how many more."""
    params, notes = query(params)
    found: dict[str, Any] = {}
    for name, known in CONTROLS.items():
        if name not in params:
            continue
        try:
            value = known.read(str(params[name]))
            found[name] = known.default if value is None else value
        except (ValueError, VisitError) as problem:
            default = written(known.default)
            shown = f"“{default}”" if default not in ("", "-1") else "the default"
            notes.append(f"The link's “{name}” cannot be used ({problem}); {shown} is shown instead.")
    if len(notes) > NOTES_TOLD:
        notes[NOTES_TOLD:] = [
            f"{len(notes) - NOTES_TOLD} more values of the link cannot be used; defaults are shown instead."
        ]
    return with_values(State(), found), notes


def query(params: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """(an address's parameters as they are written where there is room for them, notes)."""
    plain = {name: str(value) for name, value in params.items()}
    if PACKED not in plain:
        return plain, []
    try:
        return unpacked(plain.pop(PACKED)) | plain, []
    except ValueError as problem:
        return plain, [f"The link's “{PACKED}”, which holds a long view, cannot be used ({problem})."]


def to_params(state: State) -> dict[str, str]:
    """The shortest query that gives the state back."""
    values = {name: value_of(state, name) for name in CONTROLS}
    found = {name: written(value) for name, value in values.items() if value != CONTROLS[name].default}
    return {n: v for n, v in found.items() if not n.startswith("prompt") or len(v) <= PROMPT_CHARACTERS}


def address_params(state: State) -> dict[str, str]:
    """The query as it stands in the address: as it is while a person can read it, a long one packed."""
    plain = to_params(state)
    return plain if len(urlencode(plain)) <= ADDRESS_CHARACTERS else {PACKED: packed(plain)}


def written(value: Any) -> str:
    """A value as it stands in the address."""
    return "1" if value is True else "" if value is None or value is False else str(value)


def levels(text: str, layers: Sequence[int], default: Mapping[int, str]) -> dict[int, Any]:
    """The level of detail of every layer: a word for all, `3w,5e` for some (the others folded), empty the default."""
    if not text:
        return dict(default)
    if text in _LEVELS.values():
        return dict.fromkeys(layers, text)
    opened = {int(part[:-1]): _LEVELS[part[-1]] for part in text.split(",")}
    return {layer: opened.get(layer, "states") for layer in layers}


def level_text(found: Mapping[int, str]) -> str:
    """The shortest text that `levels` reads back as `found`."""
    kinds = set(found.values())
    if len(kinds) == 1:
        return kinds.pop()
    return ",".join(f"{layer}{level[0]}" for layer, level in sorted(found.items()) if level != "states")


_LEVELS = {"s": "states", "w": "words", "e": "everything"}


# ---- the session -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Seat:
    """A visitor's place in a class: the room's code, the token of a member, the key of the teacher.

    It stands in the address, so that a reload keeps it, and beside the state, so that no link that is shared or
    followed carries it.
    """

    room: str = ""
    me: str = ""
    key: str = ""


_SEATS = {"room": r"[A-Za-z]{1,8}", "me": r"[\w-]{16}", "key": r"[\w-]{24}"}


def seat_of(params: Mapping[str, str], before: Seat) -> tuple[Seat, list[str]]:
    """(the seat that an address gives, notes). An address without a room leaves a visitor where she sits."""
    given = {name: str(params[name]).strip() for name in _SEATS if name in params}
    found = {name: text for name, text in given.items() if re.fullmatch(_SEATS[name], text, re.ASCII)}
    notes = [f"The link's “{name}” is none, and is not used." for name in given if name not in found]
    if "room" not in found:
        return before, notes
    found["room"] = found["room"].upper()
    return (replace(before, **found) if found["room"] == before.room else Seat(**found)), notes


@dataclass(eq=False)
class Session:
    """What one visitor's session holds beside the values of its widgets."""

    state: State = State()
    notes: list[str] = dataclasses.field(default_factory=list)  # what a link asked for and could not have
    address: dict[str, str] | None = None  # as it was last written
    seat: Seat = Seat()
    way: str = ""  # the name of this visitor's progress in lessons, once there is some
    tries: Tries = dataclasses.field(default_factory=Tries)  # codes of rooms that there are not
    page: str = ""  # where it stands; `entered`: through the entry point; `goto`: where to go first
    entered: bool = False
    goto: str = ""
    visitor: str = dataclasses.field(default_factory=lambda: uuid4().hex)  # its name among those who share a run
    shown_models: dict[str, str] = dataclasses.field(default_factory=dict)  # field of the state → the last that loaded
    shown_prompts: dict[str, Any] = dataclasses.field(default_factory=dict)  # … → (model, the last that ran)
    positions: dict[str, int] = dataclasses.field(default_factory=dict)  # side → that shown, as an address holds it
    problems: dict[str, tuple[str, State]] = dataclasses.field(default_factory=dict)  # … → (why it could not, asked of)
    pending: tuple[str, str] | None = None  # (field, model) that waits for its download
    download_problem: str = ""
    doctor: bool = False  # its dialog is to be opened
    dialog: str = ""  # "known", "own model", "cite" or "figures": which is open
    ledger: Any = None  # the place of it in the sidebar
    save_place: Any = None  # the place of *Save this run* in the head of the page
    levels: dict[int, str] = dataclasses.field(default_factory=dict)  # of the blocks in the drawing
    look: dict[tuple[str, str], str] = dataclasses.field(default_factory=dict)  # two prompts → what to look for
    windows: dict[str, Any] = dataclasses.field(default_factory=dict)  # pager → what it is of
    figures: list[Any] = dataclasses.field(default_factory=list)  # of visit.app.figure_list, of this run of the page
    looked: dict[str, Any] = dataclasses.field(default_factory=dict)  # what the page chose itself: `recipes.Looked`
    card: tuple[int, int] | None = None  # the neuron whose card was last announced
    run_study: bool = False  # the run that the controls ask for is to be started
    later: list[Any] = dataclasses.field(default_factory=list)  # of visit.app.follow
    drawn: float | None = None
    saying: list[str] = dataclasses.field(default_factory=list)  # of visit.app.live
    held: frozenset[str] = frozenset()  # parts of the page that a lesson holds back, for visit.app.marks
    held_later: bool = False  # … only for a question that comes later
    held_told: bool = False  # … and it was said once
    progress: dict[str, Any] = dataclasses.field(default_factory=dict)  # of visit.app.lesson: lesson → what was done
    clicked: dict[str, str] = dataclasses.field(default_factory=dict)  # … question → what was clicked for it last
    pasted: str = ""  # the text of a lesson
    picked: bool = False  # a node was chosen inside a fragment
    marks: list[Any] = dataclasses.field(default_factory=list)  # of visit.app.marks, of this run of the page


def session() -> Session:
    """This session's record."""
    if "visit" not in st.session_state:
        st.session_state["visit"] = Session()
    found: Session = st.session_state["visit"]
    return found


def state() -> State:
    """What this session shows."""
    return session().state


def shown_position(side: str = "") -> int:
    """The position that a page shows, as an address holds it: the last one where the prompt has not what was asked."""
    return session().positions.get(side, value_of(state(), f"pos{side}"))


def open_dialog(name: str) -> None:
    """Have a dialog drawn until it is closed. For callbacks."""
    session().dialog = name


def close_dialog() -> None:
    session().dialog = ""


def source_prompt() -> str:
    """The prompt that values are taken from where they are put into another one."""
    return state().compare.prompt_b or DEFAULT_PROMPT_B


def ensure_entrypoint(page: str) -> None:
    """Send a page that was run by itself through the entry point.

    A folder `pages/` beside st.navigation lets a fresh server run the first deep link's page alone. The entry point
    leaves its mark right before it runs a page; a page that finds none takes the way round.
    """
    now = session()
    if not now.entered:
        now.goto = now.goto or page
        st.switch_page("streamlit_app.py", query_params=st.query_params.to_dict())
    now.entered = False


def open_page(page: str) -> None:
    """Bring the page's state and the URL together. Call once a run, before any widget."""
    now, params = session(), st.query_params.to_dict()
    moved = now.page not in ("", page)  # a click in the sidebar drops the query: ours goes on
    fresh = now.address is None or (params != now.address and not moved)
    if fresh:
        now.state, now.notes = parse(params)
        asked, now.windows = query(params)[0], {}
        if page == "compare" and "opened" not in asked and asked.keys() & {"view", "node"}:
            now.state = replace(now.state, opened="flows")  # links from when the drawings always stood there
        if not any(name in CONTROLS for name in asked):
            now.state = with_values(now.state, {"model": first_model()})
        now.seat, notes = seat_of(params, now.seat)
        now.notes += notes
        if re.fullmatch(r"[\w-]{16}", params.get("way", ""), re.ASCII):
            now.way = params["way"]
    if fresh or moved:  # a field of another page with the same key would hand its value to nobody, and stand empty
        for name in [k for k in st.session_state if str(k).startswith("w_")]:
            del st.session_state[name]
    now.page = page
    write_url()


def write_url() -> None:
    """Make the address say what is shown."""
    params = (
        address_params(state()) if session().page else {}
    )  # the bare address is the start page's: it shows no state
    params |= {name: text for name, text in vars(session().seat).items() if text}
    params |= {"way": session().way} if session().way else {}
    if st.query_params.to_dict() != params:
        st.query_params.from_dict(params)
    session().address = params


def change(**values: Any) -> None:
    """Change the state and the address, and let the widgets follow. Only from callbacks, before widgets are made."""
    now = session()
    now.state, now.notes = with_values(now.state, values), []
    for name in values:
        st.session_state.pop(f"w_{name}", None)


def take(**values: Any) -> None:
    """The same, as a visitor chooses them: what the new values make meaningless is forgotten."""
    change(**{**defaults(*(n for name in values for n in CONTROLS[name].forgets)), **values})


def defaults(*names: str) -> dict[str, Any]:
    """Fields with their defaults, for `change`."""
    return {name: CONTROLS[name].default for name in names}


def field(name: str, shown: Any = None) -> dict[str, Any]:
    """Arguments that tie a text, a number or a toggle to a field of the state: `st.text_input("…", **field("target"))`.

    `shown`: what the widget shows where the state says nothing that can be had here.
    """
    return {"value": value_of(state(), name) if shown is None else shown, **_tied(name, shown)}


def listed(name: str, options: Sequence[Any], shown: Any = None, again: str = "") -> dict[str, Any]:
    """The same for a selectbox with these options. `again`: what tells a second widget of a field from the first."""
    now = value_of(state(), name) if shown is None else shown
    return {"options": options, "index": list(options).index(now), **_tied(name, shown, again)}


def choice(name: str) -> dict[str, Any]:
    """The same for a selectbox with the field's own choices."""
    choices = CONTROLS[name].choices
    return {"format_func": choices.__getitem__, **listed(name, list(choices))}


def segments(
    name: str, among: Sequence[str] | None = None, show: Callable[[str], str] | None = None, chosen: str | None = None
) -> dict[str, Any]:  # fmt: skip
    """The same for a segmented control. `among`: those that can be chosen here; the first where the state has none.

    `show`: how an option is called, where that depends on what the page shows; `chosen`: which one stands for the
    state's value, where that does, too.
    """
    choices, value = CONTROLS[name].choices, chosen or value_of(state(), name)
    options = list(choices if among is None else among)
    shown = value if value in options else options[0]
    names = show or (lambda v: choices.get(v, v))
    return {"options": options, "format_func": names, "default": shown, **_tied(name, shown)}


def _tied(name: str, shown: Any = None, again: str = "") -> dict[str, Any]:
    """The key of a widget, which has the field's value, and what stores another one.

    The value is given as the widget's default too: Streamlit sends a value once, and drops what it has not yet sent
    when another run begins; a field that never heard of its value would answer with an empty one.
    """
    key, value = f"w_{name}{again}", value_of(state(), name) if shown is None else shown
    if key not in st.session_state or st.session_state[key] != value:
        st.session_state[key] = value
    return {"key": key, "on_change": _store, "args": (name, key)}


MOST_OPENED = 20  # parts that an address names


def set_opened(name: str, is_open: bool) -> None:
    """Open a part of a page, or fold it. From callbacks; of more than the address can name the first are forgotten."""
    others = [part for part in state().opened.split(",") if part not in ("", name)]
    change(opened=",".join([*others, name][-MOST_OPENED:] if is_open else others))


def is_opened(name: str) -> bool:
    """Whether the address says that a part of a page is open."""
    return name in state().opened.split(",")


# ---- what is paged ---------------------------------------------------------------------------------------------------
def begins_at(name: str) -> int | None:
    """Where the address says that a part that is paged begins; None where it says nothing."""
    return _begins().get(name)


def begin_at(name: str, first: int | None) -> None:
    """Say so in the address; None: nothing."""
    found = {other: at for other, at in _begins().items() if other != name}
    if first is not None:
        found[name] = first
    change(first=",".join(f"{other}-{at}" for other, at in list(found.items())[-8:]))


def _begins() -> dict[str, int]:
    return {name: int(at) for name, _, at in (one.partition("-") for one in state().first.split(",") if one)}


def _store(name: str, key: str) -> None:
    if key in st.session_state:  # else another field of the same rerun has just made this one's value meaningless
        value = st.session_state[key]
        most = PASTED_CHARACTERS if name in ("prompt", "prompt_b", "system") else FIELD_CHARACTERS
        if isinstance(value, str) and len(value) > most:
            del st.session_state[key]
            session().notes = [f"A text of {len(value):,} characters is not taken: at most {most:,} are read here."]
            return
        take(**{name: CONTROLS[name].default if value is None else value})


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
