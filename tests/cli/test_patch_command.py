"""`python -m visit patch` prints the map of `visit.patch` with its reading, writes it, and refuses in sentences."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from visit import load_model, patch
from visit.__main__ import main

FRANCE, JAPAN = "The capital of France is the city of", "The capital of Japan is the city of"


def run(capsys, *arguments: str, b: str = JAPAN) -> tuple[int, str, str]:
    status = main(["patch", "--prompt", FRANCE, "--prompt", b, *arguments])
    out = capsys.readouterr()
    return status, out.out, out.err


def test_it_tells_where_the_answer_is_and_prints_the_map(capsys):
    status, out, err = run(capsys)
    assert status == 0 and err == ""
    lines = out.splitlines()
    assert lines[0].startswith("In A “·Paris” leads “·Tokyo” by 26.1 logits: that is 0.")
    head = next(line for line in lines if line.startswith("layer"))
    assert head.split("  ")[-2:] == ["6 ·city", "7 ·of"] and "3 ·France" in head
    table = patch(load_model("visit-mini"), FRANCE, JAPAN)
    row = lines[lines.index(head) + 5].split()
    effects = table[table["layer"] == 4]["effect"]
    assert row[0] == "4" and [float(x) for x in row[1:]] == pytest.approx(effects.tolist(), abs=5.1e-4)
    assert "-0.000" not in out and "Positions 0 to 2 hold the same tokens" in out


def test_what_was_verified_is_listed_beside_its_estimate(capsys):
    status, out, _ = run(capsys, "--site", "heads", "--method", "attribution", "--verify", "3")
    assert status == 0 and "H7" in out
    listed = out[out.rindex("estimate") :].strip().splitlines()[1:]
    assert len(listed) == 3 and all(line.split()[-1] == "True" for line in listed)


def test_json_and_files_hold_the_library_s_table(capsys, tmp_path):
    _, out, _ = run(capsys, "--site", "mlp_out", "--at", "last", "--json", "--distractor", " Rome")
    found = json.loads(out, parse_constant=lambda c: pytest.fail(f"{c} is not JSON"))
    table = patch(load_model("visit-mini"), FRANCE, JAPAN, "mlp_out", "last", distractor=" Rome")
    rows = found["tables"]["patch"]
    assert [row["id"] for row in rows] == table["id"].tolist()
    assert [row["effect"] for row in rows] == pytest.approx(table["effect"].tolist(), rel=1e-4, abs=1e-6)
    assert found["meta"]["m_a"] == pytest.approx(table.attrs["m_a"], rel=1e-4)
    assert found["meta"]["distractor"]["token"] == " Rome" and found["meta"]["prompt_b"] == JAPAN
    for name, start in (("x.svg", b"<svg"), ("x.png", b"\x89PNG"), ("x.html", b"<!"), ("x.csv", b"")):
        status, out, err = run(capsys, "--site", "heads", "--out", str(tmp_path / name))
        assert status == 0 and out == "" and "wrote" in err
        if name != "x.csv":
            assert (tmp_path / name).read_bytes().lstrip().startswith(start)
    assert len(pd.read_csv(tmp_path / "x-patch.csv")) == 64


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--prompt", "And a third."], "given twice here"), (["--verify", "3"], "verify belongs to"),
        (["--site", "resid_pre"], "invalid choice"), (["--target", " Paris"], "the same word"),
        (["--out", "x.txt"], "ends otherwise"),
        (["--site", "heads", "--at", "each", "--method", "attribution", "--out", "x.svg"], "three axes"),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_sentence_and_status_2(capsys, arguments, says):
    status, out, err = run(capsys, *arguments)
    assert status == 2 and out == "" and err.startswith("visit: ") and says in err and len(err.splitlines()) == 1


def test_one_prompt_is_too_few(capsys):
    assert main(["patch", "--prompt", FRANCE]) == 2
    assert "first A, then B; got 1." in capsys.readouterr().err
