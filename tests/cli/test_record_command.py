"""`python -m visit record`: recording, showing and checking, and mistakes in one sentence."""

from __future__ import annotations

import json
import re

import pytest
from recordings import JAPAN, recorded, tampered

import visit
from visit.__main__ import main


def ran(capsys, *arguments) -> tuple[int, str, str]:
    status = main(["record", *map(str, arguments)])
    out = capsys.readouterr()
    return status, out.out, out.err


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "run.visit"
    path.write_bytes(recorded())
    return path


def test_what_is_recorded_is_drawn_as_the_command_graph_draws_it(capsys, tmp_path):
    kept = ("--layers", "3-4", "--heads", "2", "--neurons", "3", "--distractor", " Paris")
    status, out, err = ran(capsys, "--prompt", JAPAN, *kept, "--memory", "1", "--out", tmp_path / "run.visit")
    assert (status, out) == (0, "") and err.startswith("wrote ") and err.endswith(" MB)\n")
    assert main(["graph", "--prompt", JAPAN, *kept, "--out", str(tmp_path / "live.svg")]) == 0
    assert ran(capsys, "--show", tmp_path / "run.visit", "--out", tmp_path / "recorded.svg")[0] == 0
    assert (tmp_path / "recorded.svg").read_bytes() == (tmp_path / "live.svg").read_bytes()


def test_a_recording_says_what_it_holds(capsys, file):
    status, out, err = ran(capsys, "--show", file)
    assert (status, err) == (0, "")
    for words in ("visit-mini (sha256:", "of a test", "“·Tokyo” becomes the first choice", "pair/changes", "811 nodes"):
        assert words in out
    status, out, _ = ran(capsys, "--show", file, "--json")
    found = json.loads(out)
    assert status == 0 and found["meta"]["model"] == "visit-mini" and len(found["tables"]["nodes"]) == 811


def test_a_check_holds_or_says_that_it_does_not(capsys, file):
    status, out, err = ran(capsys, "--check", file, "--nodes", 6, "--seed", 1)
    assert (
        (status, err) == (0, "")
        and re.search(r"\d+ nodes, \d+ edges, \d+ tables, ", out)
        and "readings computed again with visit-mini: " in out
        and "All hold." in out
    )

    def edit(content, arrays):
        arrays["a/graph/nodes/norm"] = arrays["a/graph/nodes/norm"] * 2

    file.write_bytes(tampered(edit))
    status, out, _ = ran(capsys, "--check", file, "--nodes", 6)
    assert status == 1 and "Some do NOT hold." in out


@pytest.mark.parametrize(("arguments", "why"), [
    (("--prompt", JAPAN), "say which with --out run.visit"),
    (("--prompt", JAPAN, "--out", "x.svg"), "--out writes .visit"),
    (("--prompt", JAPAN, "--out", "/nowhere/x.visit"), "does not exist"),
    (("--show", "none.visit"), "cannot be read"),
    (("--show", "README.md"), "no zip file"),
    (("--prompt", JAPAN, "--show", "x.visit"), "not allowed with"),
    ((), "One of the arguments"),
    (("--prompt", JAPAN, "--memory", "0", "--out", "x.visit"), "memory must be at least 1"),
])  # fmt: skip
def test_mistakes_are_one_sentence(capsys, arguments, why):
    status, out, err = ran(capsys, *arguments)
    assert (status, out) == (2, "") and err.startswith("visit: ") and why in err and err.count("\n") == 1


def test_two_recordings_of_one_run_hold_the_same_numbers(tmp_path):
    """So that a shipped recording can be made again and compared."""
    model = visit.load_model("visit-mini")
    found = []
    for name in ("one", "two"):
        visit.save_recording(tmp_path / name, model, JAPAN, layers=[4], memory=1)
        found.append(visit.load_recording(tmp_path / name))
    for name, table in found[0].tables.items():
        assert table.equals(found[1].tables[name]), name
