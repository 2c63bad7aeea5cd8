"""What a session shows: a frozen record of what pages share, and one of each page.

One place to edit per control: its field, with a type, a default and, for choices, their names on screen. From these
follow the widget (visit.app.fields), the parser of the address and its writer (visit.app.address).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from visit.app.link_values import (
    NODE_ID,
    Amount,
    ModelName,
    NodeText,
    Position,
    Positive,
    PromptText,
    Ranges,
    decimal,
    of_form,
    on_or_off,
    one_of,
    other_model_name,
    short_text,
    whole_number,
    whole_within,
)
from visit.models.catalog import MINI

DEFAULT_PROMPT = "The capital of Japan is the city of"
DEFAULT_PROMPT_B = "The capital of France is the city of"
_CHANGE = r"(zero|mean|from|(scale|add)-?\d{1,3}(\.\d{1,3})?)@(all|-?\d{1,6})"  # how, and at which position
_PART_NAME = r"[a-z][a-z0-9_-]{0,29}"  # of a page, opened by choice
_FIGURE = r"(\d{1,2}[ab]?|early|tables)"
_RECORDING = r"[a-z0-9][a-z0-9-]{0,39}"  # that is shipped, or the first letters of a file's sum


def control(default: Any, *labels: str, forgets: tuple[str, ...] = ()) -> Any:
    """A field's default; what its choices are called on screen; the fields that a new value makes meaningless."""
    return dataclasses.field(default=default, metadata={"labels": labels, "forgets": forgets})


# what is chosen in a drawing of one prompt, or two
DRAWN = ("node", "detail", "pin", "align", "traced", "subject", "cell")
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
        str, of_form(rf"(,|-?{NODE_ID}(,|$)){{0,100}}", "it is no list of nodes; nodes look like L3.head5")
    ] = ""
    detail: Annotated[
        str,
        of_form(
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
    zoom: Annotated[int, whole_within(20, 400)] = 100  # percent, of every drawing
    find: str = ""  # the word that is looked for in a drawing
    traced: NodeText = ""  # the node whose sum is traced back
    map_color: Literal["target", "rank", "top"] = "target"  # of the lens map; what it is called depends on the target
    unfolded: Annotated[str, of_form(r"\d{1,4}(,\d{1,4}){0,99}", "it is no list of folds; they look like 3,12")] = ""
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
    model_b: Annotated[str, other_model_name] = control("", forgets=("pos_b", "layers", *LOOKED_AT))
    recording_b: Annotated[str, of_form(_RECORDING, "it is no name of a recording")] = ""  # beside the open one
    pos_b: Position = -1
    target_b: str = ""
    distractor_b: str = ""
    align: Annotated[
        str,
        of_form(r"((\d{1,6}:\d{0,6}|:\d{1,6})(,|$)){0,200}", "corrections of the alignment are written 3:5,4:,:6"),
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

    head: Annotated[str, of_form(r"L\d{1,4}\.head\d{1,4}", "it is no head; heads look like L4.head1")] = ""
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
    source: Annotated[int | None, whole_number("it is no position; positions are whole numbers from 0")] = None
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
        str, of_form(r"([+-]\S{1,40}(\s|$)){0,500}", "words more and less than the list has are written +well -thing")
    ] = ""


@dataclass(frozen=True)
class Neurons:
    """The neurons."""

    neuron: Annotated[
        str, of_form(r"L\d{1,4}\.mlp_value\d{1,6}", "it is no neuron; neurons look like L3.mlp_value17")
    ] = ""
    kind: Literal["mlp", "attention"] = control("mlp", "MLP neurons", "rows of W_O")
    nsort: Literal["norm", "contribution", "influence", "coefficient"] = control(
        "norm", "by coefficient × length", "by contribution", "by influence", "by coefficient"
    )
    activity: Literal["activation", "weighted"] = control(
        "activation", "by activation (the paper)", "by activation × length (the authors' code)"
    )
    nshare: Literal["1", "2.44", "5", "10"] = control("2.44", "1 %", "2.44 %", "5 %", "10 %")
    always: Annotated[int, whole_within(50, 100)] = 85  # percent of the prompts
    word: str = ""


@dataclass(frozen=True)
class Studies:
    """The paper's studies."""

    figures: Annotated[
        str,
        of_form(rf"{_FIGURE}(,{_FIGURE}){{0,40}}", "figures are listed as 2b,5,tables"),
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
    over: Annotated[str, of_form(r"[0-9a-f]{12}", "it is no name of a study")] = ""  # laid over this one
    seed: Annotated[int, whole_number("it is no seed; seeds are whole numbers from 0")] = 0


@dataclass(frozen=True)
class WhatIf:
    """What is changed in the pass, and the map of what the answer does without every part."""

    edits: Annotated[
        str,
        of_form(
            rf"(;|!?[A-Za-z0-9_.]{{1,60}}~{_CHANGE}(;|$)){{0,40}}",
            "it is no list of changes; they look like L3.head5~zero@-1;L2.mlp_out~scale0.5@all",
        ),
    ] = ""
    units: Literal["heads", "neurons", "values"] = control(
        "heads", "all heads", "the 100 most influential neurons", "the 100 most influential memory values"
    )
    show: Literal["effect", "influence", "contribution"] = control(
        "effect", "effect: the answer without it", "influence: foreseen", "contribution: added directly"
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
    noise: Annotated[float, decimal] = 3.0
    noise_seed: Annotated[int, whole_number("it is no seed; seeds are whole numbers from 0")] = 0
    window: Annotated[int | None, Positive.__metadata__[0]] = None
    cell: Annotated[
        str, of_form(r"(resid|attn_out|mlp_out)\.\d{1,4}\.\d{1,6}", "it is no cell; cells look like resid.12.3")
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
        of_form(
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
    recording: Annotated[str, of_form(_RECORDING, "it is no name of a recording")] = control(
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
    layer: Annotated[int | None, whole_number("it is no layer; layers are whole numbers from 0")] = None
    set: Literal["facts", "names", "ioi", "plain", "repeats", "world", "own"] = "facts"
    answered: bool = False
    lesson: Annotated[str, of_form(r"[a-z0-9][a-z0-9-]{0,39}", "it is no name of a lesson")] = ""
    step: Annotated[int, whole_number("“{}” is no step; steps are whole numbers from 0", r"\d{1,2}")] = 0
    guide: Annotated[int, whole_number("the guide has the steps 1 to 5", "[1-5]")] = 0  # 0: it is off
    opened: Annotated[
        str,
        of_form(
            rf"{_PART_NAME}(,{_PART_NAME}){{0,19}}", "it is no list of parts of a page; they look like pattern,life"
        ),
    ] = ""
    first: Annotated[
        str,
        of_form(r"([a-z]{1,12}-\d{1,6}(,|$)){0,8}", "where parts that are paged begin is written map-12,pattern-0"),
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
            read = one_of(values) if values else on_or_off if hint is bool else short_text
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
