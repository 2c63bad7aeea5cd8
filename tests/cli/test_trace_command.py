"""`python -m visit trace` prints what `visit.trace` finds, draws it, and refuses in sentences."""

from __future__ import annotations

import csv
import json

import pytest

from visit import load_model, trace
from visit.__main__ import main
from visit.narrate.traces import trace_story

JAPAN = "The capital of Japan is the city of"


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    status = main(["trace", "--prompt", JAPAN, "--samples", "2", *arguments])
    out = capsys.readouterr()
    return status, out.out, out.err


@pytest.fixture(scope="module")
def table():
    return trace(load_model("visit-mini"), JAPAN, "Japan", samples=2)


def test_it_tells_the_story_and_prints_three_maps_and_the_checks(capsys, table):
    status, out, err = run(capsys)
    assert status == 0 and err == "visit: note: the subject is guessed: “·Japan”. --subject names another.\n"
    assert out.startswith("\n".join(trace_story(table)))
    assert "The stream after a block, put back at\n" in out and "Attention of 3 blocks" in out and "MLPs of 3" in out
    assert "* ·Japan" in out and out.count("block 7") == 3 and "Every sum adds up" not in out
    assert "All four checks hold" in out


def test_json_is_the_library_s_table(capsys, table):
    _, out, _ = run(capsys, "--subject", "3", "--json")
    found = json.loads(out, parse_constant=lambda c: pytest.fail(f"{c} is not JSON"))
    assert (
        found["meta"]["subject"] == {"positions": [3], "tokens": [" Japan"], "text": " Japan"}
        and found["meta"]["ledger"]["holds"]
    )
    rows = found["tables"]["trace"]
    assert [row["prob"] for row in rows] == pytest.approx(table["prob"].tolist(), rel=1e-4)
    assert rows[0]["effect"] == 0 and rows[0]["site"] == "resid"


def test_it_writes_every_kind_of_file(capsys, tmp_path):
    for kind in ("csv", "json", "html", "svg", "png"):
        assert run(capsys, "--subject", "Japan", "--out", str(tmp_path / f"t.{kind}"))[0] == 0
    with (tmp_path / "t-trace.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 3 * 8 * 8
    drawing = (tmp_path / "t.svg").read_text(encoding="utf-8")
    assert drawing.startswith("<svg") and "* ·Japan" in drawing and "MLPs of 3 blocks" in drawing
    assert "not where the answer is stored" in drawing and (tmp_path / "t.png").read_bytes()[:4] == b"\x89PNG"
    page = (tmp_path / "t.html").read_text(encoding="utf-8")
    assert "<svg" in page and "<script" not in page and "not where the answer is stored" in page


def test_the_cost_is_said_without_doing_it(capsys, monkeypatch):
    monkeypatch.setattr("visit.causal.tracing.TraceJob.update", lambda *_: pytest.fail("it was done"))
    status, out, _ = run(capsys, "--subject", "Japan", "--cost")
    assert status == 0 and out.startswith("120 cells × 2 samples: about ") and "of memory" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--subject", "Norway"], "must stand in the prompt"), (["--subject", "apan"], "whole tokens"),
        (["--subject", "7"], "brings the whole answer back"), (["--subject", "9"], "from 0 to 7"),
        (["--samples", "0"], "from 1 to"), (["--noise", "0"], "nothing is made unreadable"),
        (["--target", " Tokyo Paris"], "first one"), (["--distractor", " Paris"], "--distractor means nothing"),
        (["--window", "9"], "at most 8"), (["--out", "x.txt"], "ends otherwise"), (["--seed", "-1"], "seed"),
        (["--pos", "0"], "one token only"),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_sentence_and_status_2(capsys, arguments, says):
    status, out, err = run(capsys, *arguments)
    assert status == 2 and out == "" and says in err and err.splitlines()[-1].startswith("visit: ")
