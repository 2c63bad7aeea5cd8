"""`python -m visit effects` prints what `visit.effects` finds, tells of the heads, and refuses in sentences."""

from __future__ import annotations

import csv
import json

import pytest

from visit import capture, effects, load_model
from visit.__main__ import main

JAPAN = "The capital of Japan is the city of"
FRANCE = "The capital of France is the city of"


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    status = main(["effects", "--prompt", JAPAN, *arguments])
    out = capsys.readouterr()
    return status, out.out, out.err


def test_it_tells_the_story_of_the_heads_and_prints_the_largest_effects(capsys):
    status, out, err = run(capsys)
    assert status == 0 and err == ""
    assert out.startswith("Most for “·Tokyo”:\nL4 H1 draws on “·Japan”") and "others make up for it" in out
    assert "64 parts, one at a time; the 20 with the largest effect are shown." in out
    assert "the target has 99.5 %, rank 1." in out


def test_json_is_the_library_s_table(capsys):
    _, out, _ = run(capsys, "--json", "--nodes", "L4.head1,L4.head1.value3,L7.mlp_out", "--pos", "-1", "--at", "all")
    found = json.loads(out, parse_constant=lambda c: pytest.fail(f"{c} is not JSON"))
    model = load_model("visit-mini")
    nodes = ["L4.head1", "L4.head1.value3", "L7.mlp_out"]
    table = effects(model, capture(model, JAPAN), nodes, at="all")
    assert [row["node"] for row in found["tables"]["effects"]] == nodes
    for row, (_, own) in zip(found["tables"]["effects"], table.iterrows(), strict=True):
        assert row["kl_bits"] == pytest.approx(own["kl_bits"], rel=1e-5) and row["difference"] is None
    assert found["meta"]["before"]["rank"] == 1 and found["meta"]["at"] == "all"


def test_neurons_and_another_prompts_values(capsys, tmp_path):
    status, _, _ = run(capsys, "--nodes", "neurons", "--out", str(tmp_path / "n.csv"))
    with (tmp_path / "n-effects.csv").open(encoding="utf-8", newline="") as file:
        assert status == 0 and len(list(csv.DictReader(file))) == 100
    status, out, _ = run(capsys, "--how", "resample", "--with", FRANCE, "--nodes", "L4.head1", "--target", " Tokyo")
    assert status == 0 and "L4.head1" in out
    status, out, _ = run(capsys, "--how", "mean", "--set", "facts", "--nodes", "L4.head1")
    assert status == 0 and "L4.head1" in out


def test_the_cost_is_said_without_doing_it(capsys, monkeypatch):
    monkeypatch.setattr("visit.causal.effects.effects", lambda *_: pytest.fail("it was done"))
    status, out, _ = run(capsys, "--cost")
    assert status == 0 and out.startswith("64 parts, one at a time: about 1 s and ") and "of memory" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--how", "from"], "belong together"), (["--with", FRANCE], "belong together"),
        (["--set", "facts"], "--set belongs to --how mean"), (["--nodes", "L99.head0"], "layers 0 to 7"),
        (["--nodes", "all"], "An effect is of a head"), (["--target", " Tokyo Paris"], "token"),
        (["--out", "x.png"], "ends otherwise"),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_sentence_and_status_2(capsys, arguments, says):
    status, out, err = run(capsys, *arguments)
    assert status == 2 and out == "" and err.startswith("visit: ") and says in err and len(err.splitlines()) == 1
