"""Addresses that nobody has thought of: every parameter, on every page. No exception reaches the screen or the log."""

from __future__ import annotations

import logging
import os
import re
import time
from pathlib import Path

import pytest
from escapes import links, markdown_of
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some
from streamlit.testing.v1 import AppTest

from visit.app.address import PACKED, Seat, parse, seat_of, to_params
from visit.app.lesson_question import markdown
from visit.app.link_values import FIELD_CHARACTERS, PROMPT_CHARACTERS
from visit.app.state import CONTROLS
from visit.graph.build import parse_layers
from visit.text.markdown import escaped, plain
from visit.text.packed import packed

ROOT = Path(__file__).parents[2]
PAGES = sorted(path.stem for path in (ROOT / "pages").glob("*.py"))
RUNS = int(os.environ.get("VISIT_FUZZ", "3"))  # of each page; more to search by
LINK = "x'). ![t](http://elsewhere.invalid/t.png) [Log in](http://elsewhere.invalid/) `"
ODD = [
    "", " ", "0", "-1", "-0", "999999", "9" * 5000, "٣", "²", "1e9", "nan", "\x00", "\ud800", "\n", "\u202e",
    "é" * 300, "--x", "a..b", "한국어", "~nouser/x", "x" * 280, "../..", "a/b/c", "no-such-owner/no-such-model", LINK,
    "`", "<b>x</b>", ":red[x]", "$x$", "{0}", "%s", "0-99999," * 2000, "L0.head" + "9" * 5000, "L0.head0",
    "L7.head7.value3", "L3.mlp_value1", "L99.head1", "L3.mlp_out", "logits", "ln_final", "embed", "L0.resid_pre",
    "L0.heads.rest", "L1-3.rest", "L0.head1b", "L3.head5~zero@-1", "L3.head5~scale0.5@all;L2.mlp_out~from@3",
    "L3.head5~add1@99", "!L1.head1~mean@0", "0:0,1:", ":6", "3w,5e", "words", "everything", "12= word", "=", "0=x",
    "99999999999= x", "1", "0-3", "3-1", "80 %", "6,6", "all", "2b,5,tables", "14", "fitted", "own", "names",
    "visit-mini", " Tokyo", "Tokyo", "🙂", "a" * 9000,
]  # fmt: skip
value = some.one_of(some.sampled_from(ODD), some.text(max_size=40))


SEATS = {"room": ["BCDF", "bcdf", "B" * 9, "B C"], "me": ["x" * 16, "x" * 17], "key": ["x" * 24, "-_" * 12]}
PACKS = [packed({"prompt": LINK, "pos": "3"}), packed({"model": LINK}), packed({PACKED: "x"}), packed({"room": "BCDF"})]
HALF = {"prompt": "the \ud800 city", "target": "\udfff", "set": "\udc00", "node": "\ud83d"}  # of signs: no URL has them
PACKS += [packed({name: text}) for name, text in HALF.items()]
# what an address has beside the state: a seat in a class, a long view that is packed
BESIDE = [*SEATS, PACKED]
LIKELY = SEATS | {PACKED: [*PACKS, PACKS[0][:-3], PACKS[0][3:], "x" * 300, "_" * 9000]}


def of(name: str) -> some.SearchStrategy[str]:
    """Values of a field: what it can have, what another could have, and anything."""
    own = LIKELY[name] if name in LIKELY else CONTROLS[name].choices
    return some.one_of(some.sampled_from(list(own)), value) if own else value


addresses = some.tuples(
    some.lists(some.sampled_from(sorted(CONTROLS)), max_size=6, unique=True),
    some.lists(some.sampled_from(BESIDE), max_size=2, unique=True),
).flatmap(lambda names: some.fixed_dictionaries({name: of(name) for name in names[0] + names[1]}))


@given(some.fixed_dictionaries({}, optional={name: of(name) for name in CONTROLS}))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_address_is_a_state_that_comes_back(params):
    state, notes = parse(params)
    again, none = parse(to_params(state))
    assert again == state and none == []
    assert all(len(note) < 1000 for note in notes)
    assert all(len(v) <= max(FIELD_CHARACTERS, PROMPT_CHARACTERS) for v in to_params(state).values())


@given(some.fixed_dictionaries({}, optional={name: of(name) for name in [*BESIDE, "prompt", "pos"]}))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_address_is_a_seat_and_a_view(params):
    """Of what stands packed in it, too, which anybody can write."""
    seat, notes = seat_of(params, Seat())
    assert all(len(note) < 1000 for note in notes)
    assert seat == Seat() or seat.room
    state, told = parse(params)
    assert all(len(note) < 1000 for note in told) and parse(to_params(state))[0] == state


@given(some.text(), some.text())
@example(LINK, "`")
@example("`a``![x](http://x.y)`", "`")
@settings(max_examples=300, deadline=None, derandomize=True)
def test_nothing_of_a_text_is_markdown_but_code(text, other):
    assert re.sub(r"\\(.)|\u2060", "", plain(text)) == re.sub(r"[\\`*_{}\[\]()<>#+\-.!|~:$^=&@\u2060]", "", text)
    outside, rest = "", escaped(text + other)
    while rest:  # as a reader of Markdown goes through it
        if rest[0] == "`" and "`" in rest[1:]:
            rest = rest[rest.index("`", 1) + 1 :]
        else:
            outside, rest = outside + (rest[0] if rest[0] != "\\" else ""), rest[2 if rest[0] == "\\" else 1 :]
    assert not re.search(r"[\[\]()<>`*_:$]", outside)


SIGNS = [
    "http://",
    "https:",
    "//a.b/c",
    "www",
    ".a.b",
    "x@y",
    ".z",
    "`",
    "``",
    "*",
    "**",
    "\\",
    "[x]",
    "(",
    ")",
    "!",
    " ",
]


@given(some.lists(some.sampled_from(SIGNS), max_size=12).map("".join))
@example("http://a.b/c")
@example("`*`http://a.b")
@example("![x](//a.b/c)")
@settings(max_examples=500, deadline=None, derandomize=True)
def test_no_text_of_a_lesson_is_a_link_or_a_picture(text):
    """It was escaped sign by sign: a bare address, whose signs stand together for the reader, was a link."""
    assert links(markdown(text)) == [] and links(plain(text)) == [] and links(escaped(text)) == []


def test_a_list_of_layers_costs_what_the_model_has():
    began = time.perf_counter()
    assert parse_layers("0-9999999999", 8) == list(range(9)) and parse_layers("3-5,9", 8) == [3, 4, 5, 8]
    with pytest.raises(Exception, match="characters"):
        parse_layers("0-99999," * 2000)
    assert len(parse_layers(",".join(["0-9999"] * 50))) == 10_000
    assert time.perf_counter() - began < 5


# ---- the pages themselves --------------------------------------------------------------------------------------------
def shown(page: str, params: dict[str, str], caplog) -> AppTest:
    caplog.clear()
    app = AppTest.from_file(str(ROOT / "streamlit_app.py"), default_timeout=120).switch_page(f"pages/{page}.py")
    for name, text in params.items():
        app.query_params[name] = text
    with caplog.at_level(logging.ERROR):
        app.run()
    assert not app.exception, (page, params, [e.value for e in app.exception])
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR], (page, params, caplog.text)
    wrong = [text for text in markdown_of(app) if links(text)]
    assert not wrong, (page, params, wrong)
    return app


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("name", ["", "model", "prompt", "every", "beside", "half"])
def test_a_link_in_an_address_is_a_text_on_the_page(page, name, caplog):
    params = {
        "": {"target": LINK, "distractor": LINK, "target_b": LINK, "word": LINK, "force": LINK},
        "model": {"model": LINK, "model_b": LINK},
        "prompt": {"prompt": LINK, "prompt_b": LINK, "pos": "-2", "more": "10"},
        "every": dict.fromkeys([*CONTROLS, *SEATS], LINK),
        "half": {PACKED: packed(HALF)},
        "beside": {"room": "BCDF", "me": LINK, "key": "x" * 24, PACKED: PACKS[0]},
    }[name]
    shown(page, params, caplog)


@pytest.mark.parametrize("page", PAGES)
def test_no_address_is_an_exception(page, caplog):
    @given(addresses)
    @settings(max_examples=RUNS, deadline=None, derandomize=RUNS < 10, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    def look(params):
        shown(page, {name: text for name, text in params.items() if "\ud800" not in text}, caplog)

    look()
