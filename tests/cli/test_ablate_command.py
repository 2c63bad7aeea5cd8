"""`python -m visit ablate`: what is taken out, what becomes of the prediction, and mistakes in one sentence."""

from __future__ import annotations

import csv
import json

import pytest

from visit import Edit, ablate, capture, load_model
from visit.__main__ import main

JAPAN, FRANCE = "The capital of Japan is the city of", "The capital of France is the city of"
BASE = ("ablate", "--prompt", JAPAN)


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    status = main([*BASE, *arguments])
    out = capsys.readouterr()
    return status, out.out, out.err


def test_it_says_before_and_after_and_that_it_holds(capsys):
    status, out, err = run(capsys, "--node", "L4.head1", "--node", "L7.mlp_value377", "--distractor", " Paris")
    assert status == 0 and err == ""
    assert "·Tokyo”:" in out and "Its logit minus that of “·Paris”" in out and "rank_before" in out
    assert "numbers." in out and "Every sum adds up" in out


def test_json_holds_every_table_and_the_numbers_of_the_library(capsys):
    status, out, _ = run(capsys, "--node", "L4.head1", "--how", "resample", "--with", FRANCE, "--at", "last",
                         "--continue", "2", "--json")  # fmt: skip
    found = json.loads(out)
    assert status == 0 and set(found["tables"]) == {"prediction", "words", "edits", "ledger", "continuation"}
    mini = load_model("visit-mini")
    true = ablate(mini, capture(mini, JAPAN), Edit("L4.head1", "from", FRANCE, pos=-1))
    assert found["meta"]["kl_bits"] == pytest.approx(true.kl_bits)
    rows = {row["quantity"]: row for row in found["tables"]["prediction"]}
    assert rows["prob"]["after"] == pytest.approx(true.table["after"][0]) and rows["difference"]["before"] is None
    assert found["meta"]["ledger"]["holds"] and len(found["tables"]["continuation"]) == 2
    assert found["tables"]["edits"][0]["positions"] == [len(true.question.acts.token_ids) - 1]


def test_means_scales_and_directions(capsys, tmp_path):
    few = tmp_path / "few.txt"
    few.write_text(
        "\n".join(f"The capital of {c} is the city of" for c in ("Egypt", "Norway", "Italy")), encoding="utf-8"
    )
    for how in (["mean", "--set", str(few)], ["mean", "--set", "facts"], ["scale", "--factor", "-1"],
                ["add", "--factor", "2", "--with", FRANCE]):  # fmt: skip
        status, out, err = run(capsys, "--node", "L4.attn_out", "--how", *how)
        assert status == 0 and "Every sum adds up" in out, err
    status, _, err = run(capsys, "--node", "L4.attn_out", "--out", str(tmp_path / "a.csv"))
    assert status == 0 and "a-prediction.csv" in err
    with (tmp_path / "a-edits.csv").open(encoding="utf-8", newline="") as file:
        assert next(csv.DictReader(file))["node"] == "L4.attn_out"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--node"), (["--node", "L99.head1"], "layers 0 to 7"), (["--node", "tokyo"], "An edit names a head"),
        (["--node", "L1.head1", "--how", "mean"], "needs --set"),
        (["--node", "L1.head1", "--how", "scale"], "give a factor"),
        (["--node", "L1.head1", "--how", "scale", "--factor", "nan"], "finite number; got nan"),
        (["--node", "L1.head1", "--how", "resample"], "needs --with"),
        (["--node", "L1.head1", "--with", "x"], "belongs to"),
        (["--node", "L1.head1", "--set", "facts"], "belongs to --how mean"),
        (["--node", "L1.head1", "--factor", "2"], "belongs"),
        (["--node", "L1.head1", "--node", "L1.head1"], "replace the same"),
        (["--node", "L1.head1", "--continue", "-1"], "at least 1"),
        (["--node", "L1.head1", "--out", "x.svg"], "--out writes"), (["--node", "L1.head1.value40"], "position 40"),
        (["--node", "L1.attn_out", "--how", "resample", "--with", "The capital of", "--at", "last"], "no partner"),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_sentence(capsys, arguments, says):
    status, out, err = run(capsys, *arguments)
    assert status == 2 and out == "" and err.startswith("visit: ") and says in err and "Traceback" not in err
