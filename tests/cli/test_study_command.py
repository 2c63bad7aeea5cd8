"""`python -m visit study`: what it prints, what it writes, and what it says to a mistake."""

from __future__ import annotations

import json

import pytest

from visit.__main__ import main

ROWS = "prompt,target\nThe capital of Japan is the city of, Tokyo\nParis is the capital of, France\n"
ROWS += "Buenos Aires is the capital of, Argentina\nno target here,\nLionel Messi plays the sport of, tennis\n"


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("VISIT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "facts.csv"
    path.write_text(ROWS, encoding="utf-8")
    return path


def run(capsys, *arguments):
    status = main(["study", *map(str, arguments)])
    out = capsys.readouterr()
    return status, out.out, out.err


def strict(text):
    return json.loads(text, parse_constant=lambda c: pytest.fail(f"{c} is not JSON"))


def test_it_prints_verdicts_and_a_short_table(capsys, file):
    status, out, err = run(capsys, "--prompts", file, "--figures", "2b,14,5", "--draws", "50", "--layers", "0-3")
    assert status == 0 and err == "", "no progress where standard error is no terminal"
    assert "Spearman ρ" in out and "5 prompts of facts.csv, 3 answered correctly" in out and "4 of 8 layers" in out
    assert "prediction" in out and "incorrect" in out and "attn_out" in out


def test_json_is_strict_and_whole(capsys, file):
    status, out, _ = run(capsys, "--prompts", file, "--figures", "2b,16", "--draws", "20", "--json", "--k", "20",
                         "--limit", "2", "--values", "2")  # fmt: skip
    found = strict(out)
    assert status == 0 and set(found) == {"meta", "tables"} and set(found["tables"]) == {"2b", "16"}
    assert found["meta"]["prompts"] == 2 and found["meta"]["settings"]["k"] == 20
    assert {row["rank"] for row in found["tables"]["16"]} == {1, 2} and found["tables"]["2b"][0]["head"] is None
    assert all(set(v) == {"claim", "holds", "sentence", "numbers"} for v in found["meta"]["verdicts"]["2b"])
    assert "first 2 of 5" in found["meta"]["prompt_set"]["name"]


def test_only_the_prompts_answered_correctly(capsys, file):
    _, out, _ = run(capsys, "--prompts", file, "--figures", "2b,13", "--draws", "5", "--correct", "only", "--json")
    meta = strict(out)["meta"]
    assert (meta["prompts"], meta["correct"], meta["skipped"]) == (3, 3, 1)
    assert any("no target" in note for note in meta["left_out"]) and "13" in meta["figures_left_out"]


def test_a_file_without_targets(capsys, tmp_path):
    (tmp_path / "plain.txt").write_text("Paris is in\nThe capital of Japan is\n", encoding="utf-8")
    status, out, _ = run(capsys, "--prompts", tmp_path / "plain.txt", "--figures", "13,14", "--draws", "5")
    assert status == 0 and "Fig. 13, Fig. 14 (split): left out" in out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--figures", "4"], "figures are"), (["--layers", "7-9"], "run from 0 to 7"), (["--k", "0"], "k must be"),
        (["--limit", "0"], "at least one prompt"), (["--over", "x.json"], "belongs to --out"),
        (["--pos", "50"], "no pos"),
        (["--correct", "maybe"], "invalid choice"), (["--layers", "3-"], "written 3, 3-5"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(capsys, file, more, message):
    status, out, err = run(capsys, "--prompts", file, *more)
    assert status == 2 and out == "" and err.startswith("visit: ") and message in err and err.count("\n") == 1


def test_a_file_that_is_no_folder_is_refused_before_the_run(capsys, file):
    status, _, err = run(capsys, "--prompts", file, "--out", file)
    assert status == 2 and "is a file" in err
    status, _, err = run(capsys, "--prompts", file.with_name("none.csv"))
    assert status == 2 and "There is no file" in err


def test_a_folder_holds_the_report_and_every_figure_and_another_study_lies_over_it(capsys, file, tmp_path):
    short = ("--prompts", file, "--figures", "2b,5", "--draws", "10", "--layers", "0-3")
    status, out, err = run(capsys, *short, "--out", tmp_path / "first")
    assert status == 0 and out == "" and "report.html" in err
    assert {"report.html", "study.json", "figure-2b.csv", "figure-5.json"} <= {
        p.name for p in (tmp_path / "first").iterdir()
    }
    rows = strict((tmp_path / "first" / "figure-5.json").read_text(encoding="utf-8"))["tables"]["5"]
    assert {row["rank"] for row in rows} == {1, 2, 3}
    status, _, _ = run(
        capsys, *short, "--limit", "2", "--out", tmp_path / "b", "--over", tmp_path / "first" / "study.json"
    )
    assert status == 0 and "Laid over" in (tmp_path / "b" / "report.html").read_text(encoding="utf-8")
    status, _, err = run(capsys, *short, "--out", tmp_path / "b", "--over", tmp_path / "none.json")
    assert status == 2 and "cannot be read" in err


@pytest.mark.slow
def test_a_study_reads_through_the_lens_that_is_asked_for(capsys, tmp_path, monkeypatch):
    from visit.__main__ import main

    monkeypatch.setenv("VISIT_CACHE", str(tmp_path))
    asked = ("--prompts", "facts", "--limit", "6", "--figures", "14,early", "--draws", "20")
    assert run(capsys, *asked, "--lens", "fitted")[0] == 2
    assert main(["lens", "fit", "--tokens", "400"]) == 0
    capsys.readouterr()
    plain, fitted = (strict(run(capsys, *asked, *more, "--json")[1]) for more in ((), ("--lens", "fitted")))
    assert plain["meta"]["lens"] == "plain" and fitted["meta"]["lens"].startswith("fitted on 400 tokens")
    assert {row["series"] for row in plain["tables"]["early"]} == {"plain", "plain: exit"}
    assert {row["series"] for row in fitted["tables"]["14"]} == {"prediction", "fitted"}
    run(capsys, *asked, "--lens", "fitted", "--out", tmp_path / "study")
    page = (tmp_path / "study" / "report.html").read_text()
    assert "Early exit. How early does the model know?" in page and fitted["meta"]["lens"] in page
    assert (tmp_path / "study" / "figure-early.csv").is_file()
    assert "Early exit" in run(capsys, *asked)[1]
