"""A drawing as a file: well-formed SVG, PNG, the offline page; its provenance, and hostile text."""

from __future__ import annotations

import json
import re
import sys
from io import BytesIO
from xml.etree import ElementTree

import pytest
from drawings import FAMILIES, SVG, every_level, families
from graphs import HOSTILE, make_graph

from visit.drawing.draw import default_detail, draw, flow_data
from visit.drawing.style import page_colours
from visit.errors import VisitError
from visit.files.flow_page import flow_html, flow_png, flow_svg, script_json
from visit.files.png import _has_fonts


@families
@every_level
@pytest.mark.parametrize("theme", ["light", "auto"])
def test_svg_is_well_formed(family, level, theme):
    root = ElementTree.fromstring(draw(make_graph(**FAMILIES[family]), level, theme=theme))
    assert root.tag == SVG + "svg" and float(root.get("width")) > 0


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_file_of_one_theme_has_plain_attributes_only(theme):
    text = flow_svg(make_graph(), theme, "everything", selected="L9.head1")
    assert "var(" not in text and "<style" not in text and "rgba" not in text
    root = ElementTree.fromstring(text)
    assert not any(e.get("style") or e.get("data-i") for e in root.iter())
    boxes = list(root.iter(SVG + "rect"))
    assert boxes and all(e.get("fill") for e in boxes)
    sizes = [float(e.get("font-size")) for e in root.iter() if e.get("font-size")]
    assert min(sizes) >= 11


def test_svg_holds_its_provenance_and_a_caption():
    root = ElementTree.fromstring(draw(make_graph()))
    meta = json.loads(root.find(SVG + "metadata").text)
    assert meta["model"] == "test/model" and meta["ledger"]["holds"] and meta["prompt"] and meta["versions"]
    texts = " ".join("".join(e.itertext()) for e in root.iter(SVG + "text"))
    for part in ("test/model", "When Mary and John went to", "revision 0123456789ab", "float32", "all identities hold"):
        assert part in texts


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("/home/ada/models/my-llama/", "my-llama"), ("C:\\models\\tiny.Q8_0.gguf", "tiny.Q8_0"), ("./own", "own"),
        ("openai-community/gpt2", "openai-community/gpt2"), ("tiny.gguf", "tiny"),
    ],
)  # fmt: skip
def test_no_file_names_a_folder_of_the_machine_that_made_it(name, shown):
    graph = make_graph()
    graph.meta["model"] = name
    for text in (draw(graph), flow_html(graph)):
        assert shown in text
        if shown != name:
            assert name not in text and "/home/ada" not in text and "models" + chr(92) not in text


def test_only_text_from_right_to_left_is_set_apart():
    marks = {"\u2066", "\u2069"}
    assert not marks & set(draw(make_graph()))
    texts = [e.text or "" for e in ElementTree.fromstring(draw(make_graph(prompt="שלום <b>"))).iter(SVG + "text")]
    assert any("“\u2066שלום <b>\u2069”" in text for text in texts)


def hostile_graph():
    return make_graph(words=HOSTILE, model="<script>alert(1)</script>", prompt="".join(HOSTILE))


@every_level
@pytest.mark.parametrize("theme", ["light", "auto"])
def test_hostile_text_stays_text_in_svg(level, theme):
    root = ElementTree.fromstring(draw(hostile_graph(), level, theme=theme))
    tags = {e.tag.removeprefix(SVG) for e in root.iter()}
    assert tags <= {"svg", "g", "rect", "path", "text", "title", "metadata", "style"}
    assert not any(name.startswith("on") or "href" in name for e in root.iter() for name in e.keys())  # noqa: SIM118
    assert any("<script>" in (e.text or "") for e in root.iter(SVG + "text"))


@every_level
def test_hostile_text_stays_text_in_html(level):
    page = flow_html(hostile_graph(), level)
    page.encode("utf-8")
    lowered = page.lower()
    assert lowered.count("<script") == 3 and lowered.count("</script") == 3
    assert "<img" not in lowered and "<!--" not in lowered.replace("<!doctype", "")
    assert "\u2028" not in page and "\x00" not in page


def page_data(text):
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_a_page_holds_the_drawings_that_python_would_have_sent():
    graph = make_graph(layers=(3, 4, 7))
    data = page_data(flow_html(graph, {4: "words"}, color_by="entropy"))
    names = [view["name"] for view in data["views"]]
    assert names[0] == "block 4 at words" and len(set(names)) == len(names) == 3 + 2 * 3
    for view in data["views"]:
        chosen = {int(layer): level for layer, level in view["levels"].items()}
        sent = flow_data(graph, chosen, color_by="entropy")
        assert [data["entries"][i] for i in view["nodes"]] == sent["nodes"]
        assert all(view[part] == sent[part] for part in ("svg", "links", "junctions", "open", "rise"))
    assert len({entry["id"] for entry in data["entries"]}) == len(data["entries"]) == len(graph.nodes)


@pytest.mark.slow
@pytest.mark.parametrize(("layers", "most"), [((9,), 1_000_000), (tuple(range(12)), 3_000_000)])
def test_a_page_leaves_out_drawings_before_it_grows_too_large(layers, most):
    graph = make_graph(layers=layers, heads=25, neurons=48, attn_neurons=48, values=4)
    text = flow_html(graph, "words" if len(layers) == 1 else default_detail(graph))
    assert len(text.encode()) <= most
    held = page_data(text)
    assert {"states", "words"} <= {level for view in held["views"] for level in view["levels"].values()}
    assert ("too large" in held["legend"]["provenance"][-1]) == (len(layers) > 1)


def test_json_in_a_script_says_the_same_as_before():
    value = {"a": [*HOSTILE[:7], 1, None, 0.5]}
    text = script_json(value)
    assert json.loads(text) == value and "<" not in text and ">" not in text


def test_png_is_the_drawing_at_two_pixels_a_unit():
    pytest.importorskip("resvg_py", reason="resvg-py is not installed: no PNG files")
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed: nothing to look at PNG files with")
    svg = ElementTree.fromstring(draw(make_graph(), theme="dark"))
    picture = image.open(BytesIO(flow_png(make_graph(), "dark"))).convert("RGB")
    assert picture.size == (2 * int(svg.get("width")), 2 * int(svg.get("height")))
    assert picture.getpixel((1, 1)) == tuple(bytes.fromhex(page_colours("dark")["page"][1:]))
    assert len(picture.getcolors(1 << 24)) > 50


def test_png_without_its_library_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    _has_fonts.cache_clear()
    with pytest.raises(VisitError, match="pip install resvg-py"):
        flow_png(make_graph())
