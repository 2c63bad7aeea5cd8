"""The start page: what VISIT is, its opening example as a picture, three ways in, four questions.

Nothing is computed here and no model is loaded. What the page says of the example stands in `EXAMPLE`; a test computes
it anew from visit-mini. Every link is a real address; a plain click takes it without loading the app again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from urllib.parse import urlencode

import streamlit as st

from visit.app.address import PACKED, parse
from visit.app.sessions import open_dialog, session
from visit.app.share import actions
from visit.app.state import CONTROLS, DEFAULT_PROMPT, DEFAULT_PROMPT_B
from visit.app.widgets import ICON, component
from visit.models.catalog import first_model

SENTENCE = "A language model guesses the next word. Here you see why."


@dataclass(frozen=True)
class Link:
    """A page in a certain state. `query`: fields of the state, as they stand in the address."""

    page: str
    query: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"{self.page}?{urlencode(self.query)}" if self.query else self.page


@dataclass(frozen=True)
class Example:
    """What the picture says of its pass, as text: all of it is what visit-mini does with the default prompt."""

    words: tuple[str, ...] = ("The", "capital", "of", "Japan", "is", "the", "city", "of")
    answer: str = "Tokyo"
    prob: str = "99.5 %"
    by_block: tuple[float, ...] = (0.001, 0.0, 0.0, 0.003, 0.096, 0.491, 0.961, 0.995)  # at the last word
    first: int = 6  # the block after which it is the first choice
    layer: int = 4
    heads: int = 64
    head: int = 1  # of all heads the one that adds most to it
    source: int = 3  # the word that it attends to most
    pattern: str = "96 %"
    adds: str = "+2.5"
    without: str = "99.4 %"  # its probability when this head is taken out
    swapped: tuple[str, str] = ("France", "Paris")  # another word in the source's place, and what is said then


EXAMPLE = Example()
HEAD = f"L{EXAMPLE.layer}.head{EXAMPLE.head}"
_DRINK = "When Mary and John went to the store, John gave a drink to"
_OPENED = f"{EXAMPLE.layer}w"
_SWAP = {"prompt": DEFAULT_PROMPT, "prompt_b": DEFAULT_PROMPT_B}

LEARN = Link("learn")
DOORS = {
    "learn": LEARN,
    "explore": Link("flow", {"prompt": DEFAULT_PROMPT}),
    "bring": Link("flow", {"prompt": DEFAULT_PROMPT}),  # and the dialog where models come from
}  # fmt: skip
ELEMENTS = {
    "word": Link("compare", _SWAP),
    "head": Link("flow", {"prompt": DEFAULT_PROMPT, "node": HEAD, "detail": _OPENED}),
    "answer": Link("flow", {"prompt": DEFAULT_PROMPT, "node": "logits"}),
}  # fmt: skip
QUESTIONS = {
    "Which word made it say Tokyo?": Link(
        "flow", {"prompt": DEFAULT_PROMPT, "node": f"{HEAD}.value{EXAMPLE.source}", "detail": _OPENED}
    ),
    "Who gets the drink?": Link("flow", {"prompt": _DRINK, "target": " Mary", "distractor": " John"}),
    "What changes if Japan becomes France?": Link("compare", _SWAP),
    "Is that really the cause?": Link("whatif", {"prompt": DEFAULT_PROMPT, "edits": f"{HEAD}~zero@-1"}),
}
LINKS = {**DOORS, **ELEMENTS, **QUESTIONS}


def carries_state(params: Mapping[str, str]) -> bool:
    """Whether an address without a page says what is to be shown: such a one opens the flow page."""
    return any(name in CONTROLS or name == PACKED for name in params)


def start_page() -> None:
    """The whole page: one component, whose links come back as the name of one of `LINKS`."""
    actions()
    component("home", home_html())(key="home", on_go_change=_go)
    with st.container(key="home_more"):
        st.button(":primary[What does visit-mini, the model inside, know?]", key="home_known", type="tertiary",
                  on_click=open_dialog, args=("known",))  # fmt: skip


NOT_THE_EXAMPLE = ("explore", "bring")  # what is not about the example


def _go() -> None:
    name = st.session_state["home"]["go"]
    if name in LINKS:
        now = session()
        now.state, now.notes = parse(
            {**LINKS[name].query, **({"model": first_model()} if name in NOT_THE_EXAMPLE else {})}
        )
        now.dialog = "own model" if name == "bring" else ""
        now.goto = f"pages/{LINKS[name].page}.py"


# ---- what it is made of ----------------------------------------------------------------------------------------------
def home_html() -> str:
    """The page as HTML, made of our own texts only."""
    icon = ICON.replace("<svg ", "<svg aria-hidden='true' ", 1)
    return (
        f"<div class='home'><header><span class='icon'>{icon}</span>"
        f"<h1>VISIT</h1><p class='lead'>{SENTENCE}</p></header>"
        f"<section class='example' aria-label='An example'>{example_svg(False)}{example_svg(True)}"
        f"{_elements_told()}</section>"
        f"<nav class='doors' aria-label='Ways in'>{_doors()}</nav>"
        f"<section class='questions'><h2>Or begin with a question</h2><ul>{_questions()}</ul></section></div>"
    )


def _a(name: str, inner: str, css: str = "", label: str = "") -> str:
    """A link of `LINKS`, in HTML as in SVG."""
    said = f" aria-label='{escape(label, quote=True)}'" if label else ""
    address = escape(LINKS[name].address, quote=True)
    return f"<a class='{css}' href='{address}' data-go='{escape(name, quote=True)}'{said}>{inner}</a>"


def _elements_told() -> str:
    """The three elements of the picture in words, each a link as in the picture."""
    e = EXAMPLE
    other, then = e.swapped
    texts = {
        "word": (e.words[e.source], f"Put <b>{other}</b> in its place, and the model says <b>{then}</b>."),
        "head": (
            f"Head {e.head} of block {e.layer}",
            f"It looks back at <b>{e.words[e.source]}</b> and adds <b>{e.adds}</b> to the score of <b>{e.answer}</b>, "
            f"more than any other of the {e.heads} heads. Taken out: still {e.without}.",
        ),
        "answer": (
            e.answer,
            f"The guess, with <b>{e.prob}</b>. The dots say how probable it reads after each block: it leads from "
            f"block {e.first} on.",
        ),
    }
    return "<div class='told'>" + "".join(
        _a(name, f"<strong>{title}</strong><span>{text}</span>", f"part {name}")
        for name, (title, text) in texts.items()
    ) + "</div>"  # fmt: skip


def _doors() -> str:
    texts = {
        "learn": ("Learn", "Eight lessons of 10 to 20 minutes, with checked answers."),
        "explore": ("Explore my prompt", "Type a text. See where its next word comes from."),
        "bring": ("Bring my model", "A name on the model hub, a folder, or a GGUF file."),
    }
    return "".join(
        _a(name, f"<strong>{title} <i aria-hidden='true'>→</i></strong><span>{text}</span>", f"door {name}")
        for name, (title, text) in texts.items()
    )


def _questions() -> str:
    return "".join(f"<li>{_a(name, escape(name))}</li>" for name in QUESTIONS)


# ---- the picture -----------------------------------------------------------------------------------------------------
def example_svg(narrow: bool) -> str:
    """The example as SVG: a column a word, a row a block, the way from one word through one head to the guess.

    narrow: for a telephone, with the words upright below their columns.
    """
    e = EXAMPLE
    step, row, left, top = (38, 24, 30, 56) if narrow else (92, 25, 70, 40)
    size, bottom = (16, 90) if narrow else (17, 48)
    xs = [left + step * n for n in range(len(e.words))]
    ys = [top + row * n for n in reversed(range(len(e.by_block)))]  # of what a block leaves behind
    floor = ys[0] + 26
    width, height = (xs[-1] + 30 if narrow else xs[-1] + 250), floor + bottom
    source, last = xs[e.source], xs[-1]
    below, entry = ys[e.layer - 1], ys[e.layer]
    middle = (source + last) / 2
    turn = 0.45 * (last - source)
    way = f"M{source} {floor}V{below}C{source} {entry - 8:g} {source + turn:g} {entry:g} {middle:g} {entry}"
    onward = f"H{last - 22}Q{last} {entry} {last} {entry - 16:g}V{ys[-1]}"
    out = "" if narrow else f"Q{last} {top - 16} {last + 26} {top - 16}H{last + 60}"
    end = (last - 50, 18, "end") if narrow else (last + 70, top - 9, "start")
    said = (
        f"“{DEFAULT_PROMPT}” runs upwards through 8 blocks. Head {e.head} of block {e.layer} looks back from the last "
        f"word to “{e.words[e.source]}”; the guess is “{e.answer}”, {e.prob}."
    )
    streams = "".join(f"<path class='stream' d='M{x} {floor}V{ys[-1]}'/>" for x in xs)
    dots = "".join(f"<circle class='state' cx='{x}' cy='{y}' r='2.6'/>" for x in xs[:-1] for y in ys)
    reads = "".join(
        f"<circle class='reads' cx='{last}' cy='{y}' r='5' style='--p:{100 * p:g}%'/>"
        for y, p in zip(ys, e.by_block, strict=True)
    )
    words = "".join(_word(n, xs[n], floor + 22, size, narrow) for n in range(len(xs)))
    pill = _a(
        "head",
        f"<rect x='{middle - 42:g}' y='{entry - 15:g}' width='84' height='30' rx='15'/>"
        f"<text x='{middle:g}' y='{entry + 5:g}' text-anchor='middle' font-size='14'>L{e.layer} H{e.head}</text>",
        "part head", f"Head {e.head} of block {e.layer}",
    )  # fmt: skip
    answer = _a(
        "answer",
        f"<text x='{end[0]}' y='{end[1]}' text-anchor='{end[2]}'><tspan font-size='{24 if narrow else 30}' "
        f"font-weight='700'>{e.answer}</tspan><tspan dx='8' font-size='15' class='quiet'>{e.prob}</tspan></text>",
        "part answer", f"The guess: {e.answer}, {e.prob}",
    )  # fmt: skip
    if narrow:
        answer += f"<path class='lead-out' d='M{last} {ys[-1]}V24Q{last} 12 {last - 12} 12H{last - 42}'/>"
    return (
        f"<svg class='{'narrow' if narrow else 'wide'}' viewBox='0 0 {width} {height}' role='group' "
        f"aria-label='{escape(said, quote=True)}'>{streams}{dots}"
        f"<path class='path' d='{way}{onward}{out}'/>{reads}"
        f"<circle class='pulse' r='5' style='offset-path:path(\"{way}{onward}{out}\")'/>"
        f"{pill}{words}{answer}</svg>"
    )


def _word(n: int, x: int, y: int, size: int, upright: bool) -> str:
    """A word of the prompt below its column; the one that matters is a link."""
    word = escape(EXAMPLE.words[n])
    place = f"transform='rotate(-90 {x} {y - 12})' x='{x}' y='{y - 7}' text-anchor='end'" if upright else (
        f"x='{x}' y='{y}' text-anchor='middle'")  # fmt: skip
    text = f"<text {place} font-size='{size}'>{word}</text>"
    if n != EXAMPLE.source:
        return text
    half = 5 * len(word) + 8
    box = f"<rect x='{x - 14}' y='{y - 18}' width='28' height='{2 * half}' rx='8'/>" if upright else (
        f"<rect x='{x - half}' y='{y - 20}' width='{2 * half}' height='29' rx='8'/>")  # fmt: skip
    return _a("word", box + text, "part word", f"The word “{word}”")
