"""A study as files: the page opens offline, nothing in it can run, and every number comes back from its file."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from models import small

import visit
from visit import VisitError
from visit.drawing.style import SERIES
from visit.figures.study import COLUMNS, Run, forecast_bars, panels
from visit.figures.svg import chart_spec
from visit.files import study_report as report
from visit.files.study_file import MAX_BYTES, read_study, without_words
from visit.runs.prompts import PromptSet, Row, shipped_set
from visit.studies.captions import CAPTIONS, caption_of
from visit.studies.record import Verdict
from visit.studies.settings import ALIGNED, EARLY, FIGURES

HOSTILE = "<img src=x onerror=alert(1)>"
ASKED = ("2a", "2b", "3", "5", "7", "13", "14", EARLY, "15", "16", "17", "18", "19", "20", "21", "tables")


@pytest.fixture(scope="module")
def model():
    return visit.load_model("visit-mini")


@pytest.fixture(scope="module")
def study(model):
    """A small real study of prompts of which one is wrongly answered, under a name that wants to be HTML."""
    rows = (*shipped_set("facts").spread(5).rows, Row("The capital of Japan is the city of", " Paris"))
    return visit.study(model, PromptSet(HOSTILE, rows), figures=ASKED, draws=40)


@pytest.fixture(scope="module")
def page(study):
    return report.html(study)


@pytest.fixture(scope="module")
def files(study):
    return report.figure_files(study)


class Seen(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.found = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.found += attrs


# ---- the page --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_page_needs_neither_network_nor_scripts(page, study, tmp_path):
    files = {path.name for path in report.write(study, tmp_path / "new" / "folder")}
    whole = (tmp_path / "new" / "folder" / "report.html").read_text()
    for text in (page, whole):
        seen = Seen(text)
        assert not set(seen.tags) & {"script", "link", "iframe", "img", "object", "embed", "base", "form"}
        links = [value for name, value in seen.found if name in ("src", "href", "xlink:href", "action")]
        assert links and all(link.startswith("#") or link in files for link in links)
        assert not any(name.startswith("on") for name, _ in seen.found)
        assert not re.search(r"url\((?!#)", text) and "@import" not in text
        assert "default-src 'none'" in text
    assert "figure-2b.csv" not in page and "figure-2b.csv" in whole


def test_the_page_holds_every_figure_with_chart_caption_finding_and_verdicts(page, study):
    for figure in study.tables:
        section = page.split(f'<section id="{caption_of(figure).anchor}">')[1].split("</section>")[0]
        assert f'href="#{caption_of(figure).anchor}"' in page.split('<section id="fig-')[0], "in the contents"
        assert ("Others found:" if figure == EARLY else "The paper:") in section and "Over " in section
        if not figure.startswith("tables"):
            assert section.count("<svg ") >= 1 and "<path" in section, figure
        assert section.count('class="verdict') == len(study.verdicts.get(figure, ()))
    assert {*ALIGNED, "7", "21", "tables-1", "tables-6"} <= set(study.tables)
    assert len(page.encode()) < 1_500_000


def test_what_it_is_of_is_said(page, study):
    meta = study.meta
    for said in (meta["model"], meta["revision"], meta["prompt_set"]["hash"], meta["versions"]["torch"], "6 prompts"):
        assert str(said) in page
    assert "5 of them answered correctly" in page


def test_names_tokens_and_sentences_cannot_become_html(study):
    bad = Verdict("x", True, f"yes {HOSTILE}")
    table = study.tables["tables-1"].assign(before=HOSTILE + "\x00\u202e")
    shifts = study.tables["7"].assign(token=f" {HOSTILE}")
    hostile = replace(
        study, tables={"2b": study.tables["2b"], "tables-1": table, "7": shifts}, verdicts={"2b": [bad]},
        meta={**study.meta, "model": HOSTILE, "left_out": [HOSTILE], "figures_left_out": {HOSTILE: HOSTILE}},
    )  # fmt: skip
    text = report.html(hostile, replace(hostile))
    assert HOSTILE not in text and text.count("&lt;img src=x") > 10
    assert "img" not in Seen(text).tags and not any(name == "onerror" for name, _ in Seen(text).found)
    assert "\x00" not in text and "\u202e" not in text


def test_a_second_study_is_laid_over(study, model):
    other = visit.study(small("llama"), ["Paris is in France", "Mary gave a drink to"], figures=("2b", "16"), draws=10)
    text = report.html(replace(study, tables={f: study.tables[f] for f in ("2b", "16")}), other)
    section = text.split('id="fig-2b"')[1].split("</section>")[0]
    assert "llama, prompts" in section and "stroke-dasharray" in section
    maps = text.split('id="fig-16"')[1].split("</section>")[0]
    assert maps.count("<svg ") == 4, "two maps cannot lie on each other"
    assert "Laid over" in text


# ---- the files -------------------------------------------------------------------------------------------------------


def test_every_figure_comes_back_from_its_csv_and_json(study, files):
    for figure, table in study.tables.items():
        back = pd.read_csv(io.BytesIO(files[f"figure-{figure}.csv"]), keep_default_na=False, na_values=[""])
        assert list(back.columns) == list(table.columns) and len(back) == len(table)
        if figure in ALIGNED:
            assert np.allclose(back["mean"], table["mean"], rtol=0, atol=1e-15)
        made = json.loads(files[f"figure-{figure}.json"], parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
        assert len(made["tables"][figure]) == len(table)
        assert made["meta"]["figure"] == figure and made["meta"]["prompt_set"] == study.meta["prompt_set"]
        assert [v["sentence"] for v in made["meta"]["verdicts"]] == [
            v.sentence for v in study.verdicts.get(figure, ())
        ]  # fmt: skip


def test_a_saved_study_is_read_back(study, files):
    back = read_study(files["study.json"])
    assert set(back.tables) == set(without_words(study).tables) and back.verdicts == {}
    for figure, table in back.tables.items():
        pd.testing.assert_frame_equal(table, study.tables[figure], check_dtype=False)
    assert report.run_name(back.meta) == report.run_name(study.meta)
    one = read_study(files["figure-5.json"])
    assert list(one.tables) == ["5"]
    assert "stroke-dasharray" in report.html(replace(study, tables={"5": study.tables["5"]}), one)


def spoilt(files, **changes):
    whole = json.loads(files["figure-5.json"])
    whole["tables"]["5"][0] |= changes
    return json.dumps(whole).encode()


@pytest.mark.parametrize(
    "changes",
    [{"mean": "0.5"}, {"mean": None}, {"mean": 3.0}, {"layer": -1}, {"layer": 1.5}, {"layer": 10**9}, {"series": ["x"]},
     {"series": "x" * 1000}, {"rank": True}, {"prompts": None}, {"high": float("nan")}],
)  # fmt: skip
def test_a_file_with_a_wrong_number_is_refused(files, changes):
    with pytest.raises(VisitError, match="no saved study"):
        read_study(spoilt(files, **changes))


@pytest.mark.parametrize("figure", ["2b", "3", "5", "13", "14", EARLY, "16", "17"])
@pytest.mark.parametrize(
    "changes", [{}, {"rank": None, "head": None}, {"series": HOSTILE}, {"group": "x"}, {"rank": 99}]
)
def test_what_a_file_says_can_be_laid_over_whatever_it_says(study, files, figure, changes):
    whole = json.loads(files[f"figure-{figure}.json"])
    whole["tables"][figure] = [row | changes for row in whole["tables"][figure]] if changes else []
    other = read_study(json.dumps(whole).encode())
    for panel in panels(report.study_run(study, figure), figure, report.study_run(other, figure)):
        assert chart_spec(panel.chart)


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"[]", b"{}", b"[" * 100_000, b'{"meta": {}, "tables": {}}',
     b'{"meta": {}, "tables": {"2b": 1}}',
     b'{"meta": {}, "tables": {"2b": [1]}}', b'{"meta": [], "tables": {"2b": []}}', b" " * (MAX_BYTES + 1)],
)  # fmt: skip
def test_what_is_no_study_is_refused(content):
    with pytest.raises(VisitError, match="no saved study"):
        read_study(content)


def test_a_folder_that_cannot_be_made_is_said(study, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(VisitError, match="--out"):
        report.write(study, tmp_path / "file" / "folder")


# ---- the charts ------------------------------------------------------------------------------------------------------


def test_every_figure_has_words():
    assert set(CAPTIONS) >= {*FIGURES} - {"tables"} and {f"tables-{n}" for n in range(1, 7)} <= set(CAPTIONS)
    for caption in CAPTIONS.values():
        assert all((caption.title, caption.measured, caption.reading, caption.paper or caption.others))


def marks(spec):
    """The kinds of marks of a chart, outer and inner layers alike."""
    own = spec.get("mark")
    found = [own if isinstance(own, str) else own["type"]] if own else []
    return found + [m for part in spec.get("layer", ()) for m in marks(part)]


def test_a_line_chart_has_means_bands_and_what_unrelated_vectors_score(study):
    run = report.study_run(study, "2b")
    first, second = panels(run, "2b")
    assert first.title.startswith("I_k") and second.title.startswith("rank-biased")
    spec = chart_spec(first.chart)
    assert {"area", "line", "point", "rule"} <= set(marks(spec))
    rows = max(spec["datasets"].values(), key=len)
    assert {r["line"] for r in rows} == {"attn_out", "the block's output", "the last state"}
    assert min(r["layer"] for r in rows) == 0 and len(rows) == 3 * study.meta["n_layers"]
    floors = [v[0]["floor"] for v in spec["datasets"].values() if "floor" in v[0]]
    assert floors == [study.meta["baseline"]["intersection"], study.meta["random_pairs"]["intersection"]]
    assert f"{study.meta['baseline']['intersection']:.3f}" in spec["title"]["text"]


@pytest.mark.parametrize("figure", ["2b", "3", "5", "15"])
def test_a_legend_has_room_on_a_phone(study, figure):
    for panel in panels(report.study_run(study, figure), figure):
        for layer in panel.chart.to_dict()["layer"]:
            colour = layer["encoding"].get("color", {})
            if colour.get("legend"):
                longest = max(map(len, colour["scale"]["domain"]))
                columns = colour["legend"]["columns"]
                assert columns == 1 or columns * (32 + 6 * longest) <= 315, colour["scale"]["domain"]


@pytest.mark.parametrize(("figure", "count"), [("3", 6), ("13", 4), ("14", 1), ("17", 6), ("18", 1), ("tables-1", 0)])
def test_a_figure_is_parted_into_panels(study, figure, count):
    assert len(panels(report.study_run(study, figure), figure)) == count


def test_right_and_wrong_are_told_apart(study):
    rows = [max(chart_spec(p.chart)["datasets"].values(), key=len)
            for p in panels(report.study_run(study, "14"), "14")]  # fmt: skip
    assert {r["line"] for r in rows[0]} == {"answered correctly", "answered incorrectly"}
    rows = max(chart_spec(panels(report.study_run(study, "13"), "13")[0].chart)["datasets"].values(), key=len)
    assert {r["dash"] for r in rows} == {"all prompts", "answered correctly"}


def test_a_table_without_a_series_name_or_numbers_draws_nothing_wrong():
    empty = pd.DataFrame(columns=COLUMNS)
    assert panels(Run("none", empty), "2b") == []
    assert panels(Run("none", pd.DataFrame({"id": []})), "7") == []


def test_a_chart_whose_data_another_thread_took_is_made_again(study, monkeypatch):
    import altair as alt

    chart = panels(report.study_run(study, "5"), "5")[0].chart
    monkeypatch.setattr("visit.figures.svg.TRIES", 2)
    alt.data_transformers.register("elsewhere", lambda data, **_: {"name": "elsewhere"})
    with alt.data_transformers.enable("elsewhere"), pytest.raises(VisitError, match="busy"):
        chart_spec(chart)
    assert chart_spec(chart)["datasets"]


def test_the_forecast_names_the_largest_parts():
    table = pd.DataFrame({"part": list("abcdefgh"), "vectors": 1, "products": 1, "seconds": [8.0, 1, 2, 3, 4, 5, 6, 7]})
    rows = max(chart_spec(forecast_bars(table))["datasets"].values(), key=len)
    assert [r["part"] for r in rows] == ["a", "h", "g", "f", "e", "everything else"]
    assert rows[-1]["seconds"] == 6 and sum(r["share"] for r in rows) == pytest.approx(1)


def _light(colour):
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


# what a retina without one kind of cones makes of linear light (Machado et al. 2009, severity 1)
_EYES = {
    "all cones": np.eye(3),
    "no long": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no middle": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no short": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


def _lab(light):
    x, y, z = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ light
    x, y, z = (c ** (1 / 3) if c > 0.008856 else 7.787 * c + 16 / 116 for c in (x / 0.9505, y, z / 1.089))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_lines_stand_out_on_light_and_dark_pages_and_from_each_other_for_every_eye():
    def brightness(colour):
        return float(np.array([0.2126, 0.7152, 0.0722]) @ _light(colour)) + 0.05

    for colour in SERIES:
        assert brightness("#ffffff") / brightness(colour) >= 3 and brightness(colour) / brightness("#0f141b") >= 3
    for eye in _EYES.values():
        seen = [_lab(np.clip(np.array(eye) @ _light(c), 0, 1)) for c in SERIES]
        assert min(np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]) > 20
