"""`visit layernorm`: one prompt, files of prompts, and what is asked for in the wrong way."""

from __future__ import annotations

import json

import pytest

from visit.__main__ import main
from visit.analyses.norms import NORMS

TOKYO = "The capital of Japan is the city of"


def run(capsys, *arguments):
    status = main(["layernorm", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out, err


def test_the_command_reads_one_prompt(capsys, tmp_path):
    status, out, _ = run(capsys, "--prompt", TOKYO)
    assert status == 0 and out.startswith("ln1 of layer") and "ln_final" in out
    for norm in NORMS:
        status, out, _ = run(capsys, "--prompt", TOKYO, "--norm", norm, "--layer", 2, "--target", " Tokyo", "--json")
        found = json.loads(out)
        assert status == 0 and set(found["tables"]) == {"words", "targets"} and found["meta"]["norm"] == norm
    status, _, _ = run(capsys, "--prompt", TOKYO, "--out", tmp_path / "n.csv", "--no-final-norm")
    assert status == 0 and {p.name for p in tmp_path.iterdir()} == {"n-words.csv", "n-targets.csv", "n-meta.csv"}


def test_the_command_reads_prompt_files(capsys, tmp_path):
    files = {"a.txt": f"{TOKYO}\n\nThe cat is\n", "a.csv": f'x,prompt\n1,{TOKYO}\n2,"The cat is"\n',
             "a.jsonl": f'{{"prompt": "{TOKYO}"}}\n{{"prompt": "The cat is"}}\n'}  # fmt: skip
    found = []
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        status, out, _ = run(capsys, "--prompts", tmp_path / name, "--json")
        assert status == 0
        found.append(out)
    assert found[0] == found[1] == found[2]
    meta = json.loads(found[0])["meta"]
    assert meta["prompts"] == 2 and "function words" in meta["finding"]
    (tmp_path / "words.txt").write_text("city cat", encoding="utf-8")
    own = ("--prompts", tmp_path / "a.txt", "--words", tmp_path / "words.txt", "--mean", "vector")
    for norm in NORMS:
        status, out, _ = run(capsys, *own, "--norm", norm)
        assert status == 0 and "Function words against content words" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--prompt --prompts is required"),
        (("--prompt", "a", "--prompts", "b"), "not allowed with"),
        (("--prompt", "a", "--layer", "8"), "0 to 7; got 8"),
        (("--prompt", "a", "--norm", "ln3"), "ln3"),
        (("--prompt", "a", "--mean", "vector"), "--mean belongs to --prompts"),
        (("--prompts", "nowhere.txt"), "There is no file"),
        (("--prompts", "nowhere.txt", "--target", " a"), "--target belongs to --prompt"),
        (("--prompt", "a", "--out", "x.svg"), "ends otherwise"),
    ],
)
def test_a_wrong_command_is_one_sentence(capsys, arguments, says):
    status, out, err = run(capsys, *arguments)
    assert status == 2 and not out and err.startswith("visit: ") and says in err and err.count("\n") == 1
