"""Chat models in the app, and a start token that stands twice."""

from __future__ import annotations

import pytest
from chats import chatty, llama
from test_app import fresh_caches, start, tokens, url  # noqa: F401

import visit
from visit.app.state import DEFAULT_PROMPT
from visit.text.numbers import number


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A chat model as files."""
    model, path = chatty(), tmp_path_factory.mktemp("chatty")
    model.hf.save_pretrained(path)
    model.tokenizer.save_pretrained(path)
    return str(path)


def said(app):
    return " ".join(c.value for c in app.caption)


def test_a_prompt_to_a_chat_model_is_wrapped_on_request_and_the_address_says_so(folder):
    app = start(model=folder)
    assert not app.exception and "a plain text is out of its habit" in said(app) and not app.toggle(key="w_chat").value
    app.toggle(key="w_chat").set_value(True).run()
    assert not app.exception and not app.error and url(app)["chat"] == "1"
    assert "adds a system message by itself: “You are of help”" in said(app) and "out of its habit" not in said(app)
    assert [kind for _, kind, _, _ in tokens(app)["tokens"]].count("control") == 5, "begin, end, begin, end, begin"
    app.text_area(key="w_system").set_value("Be terse.").run()
    assert url(app)["system"] == "Be terse." and "adds a system" not in said(app) and not app.exception
    app.toggle(key="w_chat").set_value(False).run()
    assert "chat" not in url(app) and {kind for _, kind, _, _ in tokens(app)["tokens"]} == {""}


@pytest.mark.parametrize("page", ["compare", "memory", "layernorm", "neurons"])
def test_every_page_of_a_prompt_runs_it_as_a_chat_message(folder, page):
    app = start(model=folder, chat="1")
    app.switch_page(f"pages/{page}.py").run()
    assert not app.exception and not app.error
    assert app.toggle(key="w_chat").value and "adds a system message by itself" in said(app)


def test_a_model_without_a_template_runs_a_plain_prompt_and_says_so():
    app = start(chat="1")
    assert not app.exception and not app.error and "visit\\-mini has no chat template" in said(app)
    assert not [t for t in app.toggle if t.key == "w_chat"] and app.text_area(key="w_prompt").value == DEFAULT_PROMPT


def test_a_template_that_fails_is_said_and_the_plain_prompt_shown(tmp_path):
    model = chatty("{{ raise_exception('Only the French') }}")
    model.hf.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    app = start(model=str(tmp_path), chat="1")
    assert not app.exception and "Only the French" in app.error[0].value and "Shown meanwhile" in app.error[0].value
    app.toggle(key="w_chat").set_value(False).run()
    assert not app.error and not app.exception


def test_a_start_token_that_stands_twice_is_told(tmp_path):
    from dataclasses import replace

    model = replace(chatty(), tokenizer=llama(False))
    model.hf.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    app = start(model=str(tmp_path), prompt="<s>Tokyo")
    assert not app.exception and "stands twice" in said(app)


def test_values_of_the_other_prompt_are_those_of_its_message_where_this_one_is_a_message(folder):
    """A patch on Compare, and the same change on What if: the run that values come from is B as Compare runs it."""
    model, words = chatty(), ("Tokyo", "Paris")
    a, b = (visit.capture(model, visit.chat_prompt(model, word)) for word in words)
    moved = visit.ablate(model, a, [visit.Edit("L1.resid_pre", "from", b)]).kl_bits
    app = start(model=folder, chat="1", prompt=words[0], prompt_b=words[1], edits="L1.resid_pre~from@all")
    app.switch_page("pages/whatif.py").run()
    assert not app.exception and not app.error and not app.warning
    assert [m.value for m in app.metric if m.label.startswith("Whole")] == [f"{number(moved)} bits"]
