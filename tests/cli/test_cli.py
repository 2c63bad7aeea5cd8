"""The command line says what the library knows, and answers a mistake with one sentence and exit status 2."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import models
import pytest

from visit import build_flow_graph, capture
from visit.__main__ import main
from visit.files.tables import to_zip

PROMPT = "The capital of Japan is the city of"


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    status = main(list(arguments))
    out = capsys.readouterr()
    return status, out.out, out.err


def strict(text: str):
    return json.loads(text, parse_constant=lambda c: pytest.fail(f"{c} is not JSON"))


def test_graph_prints_a_story_and_a_table(capsys):
    status, out, err = run(capsys, "graph", "--prompt", PROMPT, "--layers", "2-3", "--heads", "2", "--neurons", "3")
    assert status == 0 and err == ""
    assert "Tokyo" in out and "L3.resid_post" in out and "Every sum adds up" in out and "L4" not in out.split("\n\n")[1]


def test_graph_json_is_strict_and_whole(capsys):
    status, out, _ = run(capsys, "graph", "--prompt", PROMPT, "--layers", "1", "--json", "--target", " Tokyo")
    graph = strict(out)
    assert status == 0 and set(graph) == {"meta", "nodes", "edges"}
    assert graph["meta"]["target"]["token"] == " Tokyo" and graph["meta"]["layers"] == [1]
    query = next(n for n in graph["nodes"] if n["kind"] == "query")
    assert query["contribution"] is None and isinstance(query["layer"], int) and len(query["tokens"]) == 10


def test_graph_files(capsys, tmp_path):
    for name in ("g.json", "g.csv"):
        status, out, err = run(capsys, "graph", "--prompt", PROMPT, "--layers", "0", "--out", str(tmp_path / name))
        assert status == 0 and out == "" and "wrote" in err
    assert strict((tmp_path / "g.json").read_text())["nodes"]
    with (tmp_path / "g-nodes.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(strict((tmp_path / "g.json").read_text())["nodes"]) and json.loads(rows[0]["tokens"])
    assert (tmp_path / "g-edges.csv").is_file()
    with (tmp_path / "g-meta.csv").open(encoding="utf-8", newline="") as file:
        meta = {row["property"]: row["value"] for row in csv.DictReader(file)}
    assert (
        meta["prompt"] == PROMPT
        and json.loads(meta["ledger"])["holds"]
        and {"model", "revision", "versions"} <= set(meta)
    )


def test_the_archive_of_tables_says_what_they_are_of():
    import io
    import zipfile

    model = models.small("gpt2")
    graph = build_flow_graph(model, capture(model, PROMPT), layers=[0])
    made = to_zip(graph.meta, {"nodes": graph.nodes, "edges": graph.edges})
    with zipfile.ZipFile(io.BytesIO(made)) as files:
        assert sorted(files.namelist()) == ["edges.csv", "meta.csv", "nodes.csv"]
        assert "gpt2" in files.read("meta.csv").decode() and files.read("nodes.csv").count(b"resid_mid") >= 1


def test_drawings_are_written_by_their_ending(capsys, tmp_path):
    import xml.dom.minidom

    for name in ("g.html", "g.svg", "g.png"):
        file = tmp_path / name
        status, out, err = run(
            capsys, "graph", "--prompt", PROMPT, "--layers", "1", "--detail", "words", "--out", str(file)
        )
        assert status == 0 and out == "" and "wrote" in err
    assert xml.dom.minidom.parse(str(tmp_path / "g.svg")).documentElement.tagName == "svg"
    assert (tmp_path / "g.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "g.html").read_text(encoding="utf-8")
    assert "visit-mini" in page and len(page) < 1_000_000 and "http-equiv" in page


def test_amounts_pins_and_measures_reach_the_graph(capsys):
    options = ["--heads", "0.5", "--values", "all", "--neurons", "2,1", "--attn-neurons", "0", "--by", "contribution"]
    status, out, _ = run(capsys, "graph", "--prompt", PROMPT, "--layers", "1", "--json", "--pin", "L1.head7", *options)
    graph = strict(out)
    kinds = [n["kind"] for n in graph["nodes"]]
    assert status == 0 and kinds.count("mlp_value") == 3 and "attn_neuron" not in kinds
    assert "L1.head7" in [n["id"] for n in graph["nodes"]]
    hidden = ["graph", "--prompt", "-x", "--layers", "1", "--json", "--pin", "-L1.head3"]
    status, out, _ = run(capsys, *hidden)
    assert status == 0 and "L1.head3" not in [n["id"] for n in strict(out)["nodes"]]
    assert graph["meta"]["keep"]["by"] == "contribution"


def test_doctor_reports_every_identity(capsys):
    status, out, err = run(capsys, "doctor", "visit-mini")
    assert status == 0 and err == "" and "All identities hold." in out and "GPT-2" in out
    status, out, _ = run(capsys, "doctor", "visit-mini", "--json", "--dtype", "float64")
    report = strict(out)
    assert [row["identity"] for row in report["tables"]["ledger"]] == list(range(1, 11))
    assert report["meta"]["ledger"]["holds"] and report["meta"]["ledger"]["max_rel_error"] < 1e-12


def test_doctor_exits_1_when_an_identity_fails(capsys, tmp_path):
    model = models.small("gpt2")
    model.hf.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    assert run(capsys, "doctor", str(tmp_path), "--dtype", "float64")[0] == 0
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(tmp_path / "model.safetensors")
    weights["transformer.h.1.mlp.c_proj.weight"][3, 4] = torch.nan
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    status, out, _ = run(capsys, "doctor", str(tmp_path))
    assert status == 1 and "Identities that fail" in out and "3" in out.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["graph", "--prompt", ""], "empty"),
        (["graph", "--prompt", "  "], "blank"),
        (["graph", "--prompt", "word " * 2000], "at most"),
        (["graph", "--prompt", PROMPT, "--target", "not one token"], "exactly one token"),
        (["graph", "--prompt", PROMPT, "--target", ""], "empty text"),
        (["graph", "--prompt", PROMPT, "--layers", "77"], "from 0 to"),
        (["graph", "--prompt", PROMPT, "--layers", "seven"], "Layers are written"),
        (["graph", "--prompt", PROMPT, "--pos", "99"], "got 99"),
        (["graph", "--prompt", PROMPT, "--pos", "x"], "--pos"),
        (["graph", "--prompt", PROMPT, "--heads", "many"], "no amount"),
        (["graph", "--prompt", PROMPT, "--heads", "-3"], "--heads must be"),
        (["graph", "--prompt", PROMPT, "--out", "/no/such/folder/x.json"], "does not exist"),
        (["graph", "--prompt", PROMPT, "--out", "x.docx"], "ends otherwise"),
        (["graph", "--prompt", PROMPT, "--pin", "nonsense"], "pin"),
        (["graph"], "--prompt"),
        (["doctor", "/no/such/model"], "no hub id"),
        (["nothing"], "nothing"),
        ([], "COMMAND"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_status_2(capsys, arguments, says):
    status, out, err = run(capsys, *arguments)
    assert status == 2 and out == ""
    assert err.startswith("visit: ") and says in err and err.count("\n") == 1 and "Traceback" not in err


def test_a_folder_that_is_no_place_for_a_file(capsys, tmp_path):
    (tmp_path / "taken.json").mkdir()
    status, _, err = run(capsys, "graph", "--prompt", PROMPT, "--out", str(tmp_path / "taken.json"))
    assert status == 2 and "cannot be written" in err


@pytest.mark.parametrize(
    "prompt", ["<script>alert(1)</script>", "🙂 👩‍👩‍👧", "שלום", "a\x00\x1b[31m\u202e", "two\nlines"]
)
def test_any_prompt_simply_works(capsys, prompt):
    status, out, _ = run(capsys, "graph", "--prompt", prompt, "--layers", "0", "--json")
    assert status == 0 and strict(out)["meta"]["prompt"] == prompt
    status, out, _ = run(capsys, "graph", "--prompt", prompt, "--layers", "0")
    assert status == 0 and "\x1b" not in out and "\x00" not in out


@pytest.mark.slow
def test_as_a_program_without_a_home_and_with_a_plain_terminal(tmp_path):
    """A read-only home folder and an ASCII terminal: the table still comes."""
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    env = {"PATH": "/usr/bin:/bin", "HOME": str(home), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-m", "visit", "graph", "--prompt", PROMPT, "--layers", "1"],
        capture_output=True, env=env, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"L1.resid_post" in done.stdout and b"Traceback" not in done.stderr


def test_importing_visit_is_cheap():
    code = "import visit, sys; print([m for m in ('torch', 'transformers', 'pandas', 'streamlit') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


FRANCE = "The capital of France is the city of"


def test_compare_prints_sentences_and_tables(capsys):
    status, out, err = run(capsys, "compare", "--prompt", PROMPT, "--prompt", FRANCE, "--layers", "3-4")
    assert status == 0 and err == ""
    assert "“·Japan” → “·France”" in out and "replaced" in out and "Every sum adds up" in out


def test_compare_json_holds_every_table(capsys):
    status, out, _ = run(capsys, "compare", "--prompt", PROMPT, "--prompt", FRANCE, "--layers", "4", "--json")
    found = strict(out)
    assert status == 0 and set(found) == {"meta", "tables"}
    assert set(found["tables"]) == {"answers", "alignment", "changes", "nodes", "edges", "parting"}
    assert found["meta"]["b"]["prompt"] == FRANCE and found["meta"]["difference"] == "B − A"


def test_compare_files(capsys, tmp_path):
    for name in ("d.json", "d.csv", "d.html", "d.svg"):
        status, _, err = run(
            capsys, "compare", "--prompt", PROMPT, "--prompt", FRANCE, "--layers", "4", "--out", str(tmp_path / name)
        )
        assert status == 0 and "wrote" in err
    assert (tmp_path / "d-changes.csv").is_file() and "B − A" in (tmp_path / "d.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--prompt", "a", "--prompt", "b", "--prompt", "c"), "got 3"),
        (("--prompt", PROMPT, "--prompt", FRANCE, "--align", "99:0"), "0 to 7"),
        (("--prompt", PROMPT, "--prompt", FRANCE, "--align", "x"), "written"),
        (("--prompt", PROMPT, "--target", "no such token"), "one token"),
    ],
)
def test_a_comparison_that_cannot_be_made_is_one_sentence(capsys, arguments, says):
    status, out, err = run(capsys, "compare", *arguments)
    assert status == 2 and out == "" and err.startswith("visit: ") and says in err and err.count("\n") == 1


def test_memory_prints_the_head_and_its_rows(capsys):
    status, out, err = run(capsys, "memory", "--prompt", PROMPT)
    assert status == 0 and err == ""
    assert "Head L4 H1 pushes towards “·Tokyo”" in out and "·Japan" in out and "Every sum adds up" in out


def test_memory_of_one_head_as_json_and_files(capsys, tmp_path):
    one = ("memory", "--prompt", PROMPT, "--layer", "3", "--head", "5")
    status, out, _ = run(capsys, *one, "--json")
    found = strict(out)
    assert status == 0 and set(found["tables"]) == {"heads", "memory", "life", "figures"}
    assert found["meta"]["head"]["node"] == "L3.head5" and {h["layer"] for h in found["tables"]["heads"]} == {3}
    last = found["tables"]["memory"][-1]
    assert last["source_pos"] is None and last["tokens"] is None
    for name in ("m.csv", "m.html", "m.svg", "m.png"):
        assert run(capsys, *one, "--out", str(tmp_path / name))[0] == 0
    with (tmp_path / "m-memory.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[-1]["tokens"] == "" and json.loads(rows[0]["tokens"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(("--head", "1"), "needs --layer"), (("--layer", "99"), "0 to 7"), (("--layer", "1", "--head", "99"), "0 to 7"),
     (("--pos", "99"), "0 to 7")],
)  # fmt: skip
def test_a_head_that_is_not_there_is_one_sentence(capsys, arguments, says):
    status, out, err = run(capsys, "memory", "--prompt", PROMPT, *arguments)
    assert status == 2 and out == "" and err.startswith("visit: ") and says in err


def test_one_prompt_is_no_comparison(capsys):
    assert main(["compare", "--prompt", PROMPT]) == 2
    assert "needs two sides" in capsys.readouterr().err


# ---- waiting threads -------------------------------------------------------------------------------------------------

SPY = """
import os, runpy, sys
class Spy:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            sys.meta_path.remove(self)
            print("torch is loaded with", os.environ.get("OMP_WAIT_POLICY"))
sys.meta_path.insert(0, Spy())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "given", "found"),
    [
        ("import visit; visit.capture", None, "passive"),
        ("import visit; visit.capture", "active", "active"),
        ("import torch, visit; visit.capture; print(os.environ.get('OMP_WAIT_POLICY'))", None, "None\nNone"),
        ("sys.argv = ['visit', 'memory', '--model', 'no/such/model!', '--prompt', 'x']\n"
         "runpy.run_module('visit', run_name='__main__')", None, "passive"),
    ],
    ids=["library", "the user's own", "torch came first", "command line"],
)  # fmt: skip
def test_threads_wait_without_spinning_wherever_visit_comes_before_torch(code, given, found):
    env = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    env |= {"PYTHONPATH": str(Path(__file__).parents[2]), "VISIT_OFFLINE": "1"}
    env |= {} if given is None else {"OMP_WAIT_POLICY": given}
    done = subprocess.run([sys.executable, "-c", SPY + code], env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == f"torch is loaded with {found}", done.stderr


def test_graph_by_influence_says_what_is_shown(capsys):
    asked = ("graph", "--prompt", PROMPT, "--layers", "4", "--by", "influence", "--heads", "2", "--neurons", "3")
    status, out, _ = run(capsys, *asked)
    assert status == 0 and "of the summed |influence| of all heads and MLP neurons" in out
    assert "influence" in out.split("\n\n")[1].splitlines()[0]
    graph = strict(run(capsys, *asked, "--json")[1])
    assert 0 < graph["meta"]["influence"]["share"] < 1
    assert all(n["influence"] is None for n in graph["nodes"] if n["kind"] == "resid_post")
    plain = strict(run(capsys, "graph", "--prompt", PROMPT, "--layers", "4", "--json")[1])
    assert "influence" not in plain["meta"] and not any("influence" in n for n in plain["nodes"])


def test_faithfulness_prints_a_sentence_and_the_curves(capsys, tmp_path):
    status, out, _ = run(capsys, "faithfulness", "--prompt", PROMPT, "--by", "norm,influence")
    assert status == 0 and out.startswith("10 % of the heads and neurons") and "CPR" in out
    assert out.splitlines()[2].split() == ["share", "units", "norm", "influence"]
    asked = ("faithfulness", "--prompt", PROMPT, "--by", "influence", "--with", PROMPT.replace("Japan", "France"))
    found = strict(run(capsys, *asked, "--json")[1])
    assert len(found["faithfulness"]) == 10 and set(found["meta"]["cpr"]) == {"influence"}
    assert found["faithfulness"][-1]["recovered"] == 1 and "France" in found["meta"]["replaced"]
    assert run(capsys, *asked, "--out", str(tmp_path / "f.csv"))[0] == 0 and (tmp_path / "f-faithfulness.csv").is_file()
    for more, says in (
        (("--by", "effect"), "by must be one of"), (("--seed", "-1"), "--seed must be"),
        (("--with", PROMPT, "--set", "facts"), "give one of them"), (("--set", "nothing.txt"), "nothing.txt"),
    ):  # fmt: skip
        status, _, err = run(capsys, "faithfulness", "--prompt", PROMPT, *more)
        assert status == 2 and says in err and err.startswith("visit: ")
