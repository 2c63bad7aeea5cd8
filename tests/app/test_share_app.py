"""*Share* and *Projector*: every page has them, the link is the address, and what cannot be shared is said."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest
from streamlit.testing.v1 import AppTest

from visit.app.share import QR_CHARACTERS, is_local, qr_code

ROOT = Path(__file__).parents[2]


def opened(page: str, share: bool = False, **params: str) -> AppTest:
    app = AppTest.from_file("../../streamlit_app.py", default_timeout=60).switch_page(f"pages/{page}.py")
    for name, value in params.items():
        app.query_params[name] = value
    if share:
        app.session_state["share"] = True
    return app.run()


def shared(app: AppTest) -> dict:
    return json.loads(next(c for c in app.get("bidi_component") if c.proto.component_name == "visit_share").proto.json)


def test_every_page_has_the_row():
    for page in (ROOT / "pages").glob("*.py"):
        assert "ui.heading(" in page.read_text() or page.stem in ("home", "learn"), page.name
    for name in ("home", "learn", "glossary"):
        assert [b.label for b in opened(name).button if b.key == "projector"] == ["Projector"]


def test_the_link_is_the_address_and_is_made_when_it_is_asked_for():
    params = {"prompt": "a & b = “c”", "node": "L4.head1", "detail": "4w"}
    assert not [c for c in opened("glossary", **params).get("bidi_component") if "share" in c.proto.component_name]
    app = opened("glossary", share=True, **params)
    found = shared(app)
    assert {k: v[0] for k, v in parse_qs(urlparse(found["link"]).query).items()} == params
    assert found["code"].startswith("<svg") and "href" not in found["code"]


def test_a_code_is_of_its_text_and_has_a_white_rim():
    one, other = qr_code("http://a.example/flow?pos=1"), qr_code("http://a.example/flow?pos=2")
    assert one == qr_code("http://a.example/flow?pos=1") != other
    assert 'fill="#fff"' in one and 'class="qrline"' in one


def test_a_link_too_long_for_a_telephone_has_a_sentence_and_no_code():
    found = shared(opened("glossary", share=True, prompt="the city of " * 80))
    assert found["code"] == "" and len(found["link"]) > QR_CHARACTERS
    assert any("too many for a QR code" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("http://localhost:8501/flow?node=logits", True),
        ("http://127.0.0.1:8501", True),
        ("http://[::1]:8501/", True),
        ("http://192.168.1.20:8501/flow", False),
        ("https://visit.example.org/flow", False),
        ("http://localhost.example.org/", False),
    ],
)
def test_an_address_that_leads_everyone_home_is_known(address, local):
    assert is_local(address) is local


def test_the_projector_stands_in_the_address_and_there_is_a_way_back():
    app = opened("glossary")
    app.button(key="projector").click().run()
    assert not app.exception and "projector" in app.query_params
    assert app.button(key="projector").label == "Leave projector mode"
    app.button(key="projector").click().run()
    assert "projector" not in app.query_params and app.button(key="projector").label == "Projector"
