"""`python -m visit heads` asks a question over a set, goes on where it was stopped, and writes a folder of files."""

from __future__ import annotations

import csv
import json

import pandas as pd
import pytest

import visit
from visit.__main__ import main
from visit.causal.head_sets import HeadRun
from visit.runs.prompts import shipped_set

FEW = ("--prompts", "ioi", "--limit", "4")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIT_CACHE", str(tmp_path / "cache"))


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    status = main(["heads", *arguments])
    out = capsys.readouterr()
    return status, out.out, out.err


def test_json_is_the_librarys_table(capsys):
    status, out, _ = run(capsys, *FEW, "--json")
    found = json.loads(out, parse_constant=lambda c: pytest.fail(f"{c} is not JSON"))
    table = visit.head_question(visit.load_model("visit-mini"), shipped_set("ioi").spread(4))
    assert status == 0 and [row["node"] for row in found["tables"]["heads"]] == table["node"].tolist()
    for name in ("effect", "effect_low", "contribution_high", "attends_target"):
        assert [row[name] for row in found["tables"]["heads"]] == pytest.approx(table[name].tolist(), nan_ok=True)
    assert found["meta"]["prompts"] == 4 and found["meta"]["prompt_set"]["name"] == "ioi (4 of 48)"


def test_a_table_is_printed_behind_its_story(capsys):
    status, out, _ = run(capsys, *FEW, "--nodes", "layers", "--how", "resample")
    assert status == 0 and out.startswith("Over 4 prompts the answer falls most with the partner's values of ")
    assert "16 parts; the 16 with the largest effect are shown." in out


def test_a_folder_holds_table_maps_and_a_page(capsys, tmp_path):
    for nodes in ("heads", "layers", "neurons"):
        folder = tmp_path / nodes
        status, _, err = run(capsys, *FEW, "--nodes", nodes, "--out", str(folder))
        assert status == 0 and "wrote 5 files" in err
        assert {f.name for f in folder.iterdir()} == {f"{nodes}.{e}" for e in ("csv", "json", "svg", "png", "html")}
        rows = list(csv.DictReader((folder / f"{nodes}.csv").open(encoding="utf-8")))
        assert len(rows) == {"heads": 64, "layers": 16, "neurons": 100}[nodes] and "effect_low" in rows[0]
        assert (folder / f"{nodes}.png").read_bytes().startswith(b"\x89PNG")
        svg = (folder / f"{nodes}.svg").read_text(encoding="utf-8")
        assert svg.startswith("<svg") and "over 4 prompts of ioi" in svg
        page = (folder / f"{nodes}.html").read_text(encoding="utf-8")
        assert "visit-mini" in page and "http://" not in page.replace("http://www.w3.org", "")


def test_a_run_that_was_stopped_goes_on_from_its_last_prompt(capsys, monkeypatch):
    whole = visit.head_question(visit.load_model("visit-mini"), shipped_set("ioi").spread(4))
    real, seen = HeadRun._measured, []

    def stopped(self, line):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(line.row.line)
        return real(self, line)

    monkeypatch.setattr(HeadRun, "_measured", stopped)
    status, _, err = run(capsys, *FEW)
    assert status == 130 and "goes on from the last prompt that was done" in err
    monkeypatch.setattr(HeadRun, "_measured", lambda self, line: seen.append(line.row.line) or real(self, line))
    status, out, err = run(capsys, *FEW, "--json")
    assert status == 0 and "goes on from: 2 of 4 prompts" in err and len(seen) == 4
    again = pd.DataFrame(json.loads(out)["tables"]["heads"])
    assert (again["effect"] == whole["effect"]).all() and (again["effect_low"] == whole["effect_low"]).all()


def test_what_cannot_be_asked_is_one_sentence(capsys, tmp_path):
    file = tmp_path / "own.csv"
    file.write_text("prompt,target,distractor\nThe capital of Japan is, Tokyoooo, Paris\n", encoding="utf-8")
    status, _, err = run(capsys, "--prompts", str(file))
    assert status == 2 and err.startswith("visit: own.csv holds no line") and "exactly one token" in err
    status, out, _ = run(capsys, "--prompts", str(file), "--first-token")
    assert status == 0 and "Line 2: a word of several tokens stands for its first one." in out
    assert run(capsys, "--prompts", "facts", "--how", "from")[2].count("\n") == 1
    assert "--limit must be at least 1" in run(capsys, *FEW[:2], "--limit", "0")[2]
    assert "is a file" in run(capsys, *FEW, "--out", str(file))[2]
    status, out, _ = run(capsys, *FEW, "--cost")
    assert status == 0 and out.startswith("4 prompts: about ")
