"""`python -m visit lens`: fit, report, map, and `--lens` of the graph."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from visit.__main__ import main

PROMPT = "The capital of Japan is the city of"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIT_CACHE", str(tmp_path))


@pytest.mark.slow
def test_a_lens_is_fitted_once_and_read_through_by_name_and_by_file(tmp_path, capsys):
    assert main(["lens", "map", "--prompt", PROMPT, "--lens", "fitted"]) == 2
    assert "python -m visit lens fit --model visit-mini" in capsys.readouterr().err
    file = tmp_path / "mini.safetensors"
    assert main(["lens", "fit", "--tokens", "2000"]) == 0 and "fitted on 2,000 tokens" in capsys.readouterr().out
    assert main(["lens", "fit", "--tokens", "2000", "--out", str(file)]) == 0 and file.is_file()
    capsys.readouterr()
    maps = []
    for lens in ("plain", "fitted", str(file)):
        assert main(["lens", "map", "--prompt", PROMPT, "--lens", lens, "--json"]) == 0
        maps.append(json.loads(capsys.readouterr().out))
    assert maps[0]["meta"]["lens"] == "plain" and maps[1]["meta"]["lens"]["tokens"] == 2000
    assert maps[1]["tables"] == maps[2]["tables"] != maps[0]["tables"]
    assert main(["lens", "map", "--prompt", PROMPT, "--lens", "fitted"]) == 0
    assert "block 7" in capsys.readouterr().out
    for command in (["graph", "--prompt", PROMPT, "--layers", "3"], ["compare", "--prompt", PROMPT, "--prompt", "A b"]):
        assert main([*command, "--lens", "fitted", "--json"]) == 0
    assert '"lens"' in capsys.readouterr().out
    assert main(["graph", "--prompt", PROMPT, "--layers", "4", "--lens", "fitted"]) == 0
    assert "As the fitted lens reads it, " in capsys.readouterr().out
    graphs = []
    for how in ("plain", "fitted"):
        assert (
            main(["graph", "--prompt", PROMPT, "--layers", "4", "--lens", "fitted", "--components", how, "--json"]) == 0
        )
        found = json.loads(capsys.readouterr().out)
        graphs.append({node["id"]: node["tokens"] for node in found["nodes"]})
    assert found["meta"]["lens"]["carries_parts"] and graphs[0]["L4.head7"] != graphs[1]["L4.head7"]
    assert all(graphs[0][f"L4.{kind}"] == graphs[1][f"L4.{kind}"] for kind in ("resid_post", "mlp_out", "ln1_out"))
    assert main(["graph", "--prompt", PROMPT, "--components", "fitted"]) == 2
    assert "give --lens fitted" in capsys.readouterr().err
    assert main(["lens", "report", "--prompts", "plain", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["tables"]) == {"report", "controls"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["fit", "--tokens", "5"], "at least 384 tokens"), (["fit", "--text", "none.txt"], "cannot be read"),
     (["fit", "--out", "x.json"], "ends otherwise"), (["map", "--prompt", "a", "--lens", "none"], "no file"),
     (["report", "--lens", "plain"], "no report of its own"), (["report"], "No lens is fitted")],
)  # fmt: skip
def test_mistakes_are_a_sentence(arguments, says, capsys):
    assert main(["lens", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("visit: ") and says in error and "Traceback" not in error


def test_a_map_is_written_as_a_drawing_a_picture_and_a_page_that_stand_alone(tmp_path, capsys):
    files = {ending: tmp_path / f"map.{ending}" for ending in ("svg", "png", "html", "csv", "json")}
    for file in files.values():
        assert main(["lens", "map", "--prompt", PROMPT, "--out", str(file)]) == 0
    assert files["png"].read_bytes().startswith(b"\x89PNG")
    drawing, page = files["svg"].read_text(), files["html"].read_text()
    for text in (drawing, page):
        assert "·Tokyo" in text and "block 7" in text and "embedding" in text and "through the plain lens" in text
        assert "<script" not in text and "http" not in text.replace("http://www.w3.org", "").replace("http-equiv", "")
    assert "currentColor" not in drawing and ElementTree.fromstring(drawing).tag.endswith("svg")
    assert "default-src 'none'" in page and "currentColor" in page
    assert len(json.loads(files["json"].read_text())["tables"]["map"]) == 9 * 8
    assert (tmp_path / "map-map.csv").is_file() and capsys.readouterr().err.count("wrote ") == 5
    assert main(["lens", "map", "--prompt", PROMPT, "--out", str(tmp_path / "map.pdf")]) == 2


def test_a_map_through_a_fitted_lens_says_so_and_which_blocks_show_habit(tmp_path, capsys):
    assert main(["lens", "fit", "--tokens", "400"]) == 0
    file = tmp_path / "map.svg"
    assert main(["lens", "map", "--prompt", PROMPT, "--lens", "fitted", "--out", str(file)]) == 0
    assert "through a lens fitted on 400 tokens that the model wrote" in file.read_text()


def test_nothing_in_a_prompt_becomes_markup(tmp_path, capsys):
    for ending in ("svg", "html"):
        file = tmp_path / f"map.{ending}"
        assert main(["lens", "map", "--prompt", "<b>x & y</b>", "--out", str(file)]) == 0
        assert "<b>" not in file.read_text() and "&lt;b&gt;" in file.read_text()
