"""Nothing changes unseen: what every command prints, two drawings, and what addresses mean, as they were recorded.

Numbers are compared within 1e-5 relative (and 1e-6 absolute: what is noise in float32), texts exactly. After a change
that is meant, `VISIT_GOLDEN=write python -m pytest tests/golden` records anew; read the difference before you commit.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import models
import pytest
import torch

import visit
from visit.__main__ import main
from visit.app.address import parse, to_params, written
from visit.app.state import CONTROLS, value_of

HERE = Path(__file__).parent
FAMILIES = ("llama", "neox", "gemma3")
JAPAN, FRANCE = "The capital of Japan is the city of", "The capital of France is the city of"
NAMES = "When Mary and John went to the store, John gave a drink to"
FEW = ["--heads", "2", "--neurons", "3", "--attn-neurons", "2"]
SET = "prompt,target,distractor\n" + "\n".join(
    f"The capital of {country} is the city of, {capital}, Rome"
    for country, capital in [("Japan", "Tokyo"), ("France", "Paris"), ("Egypt", "Cairo"), ("Norway", "Oslo")]
)
# of a machine, or of a day
WHAT_CHANGES = ("versions", "cite", "seconds", "seconds_expected", "made", "date", "weights", "hash", "revision")


def commands(layer: str, head: str) -> dict[str, list[str]]:
    """Every command with its usual options. `SET` is the file of a few prompts."""
    return {
        "graph": ["graph", "--prompt", JAPAN, "--layers", layer, *FEW],
        "graph-names": ["graph", "--prompt", NAMES, "--target", " Mary", "--distractor", " John", "--layers", layer,
                        "--by", "contribution", *FEW],
        "compare": ["compare", "--prompt", JAPAN, "--prompt", FRANCE, "--layers", layer, *FEW],
        "ablate": ["ablate", "--prompt", JAPAN, "--node", f"L{layer}.head{head}", "--node", f"L{layer}.head0.value3",
                   "--how", "resample", "--with", FRANCE, "--at", "last", "--continue", "3"],
        "memory": ["memory", "--prompt", JAPAN, "--layer", layer, "--head", head],
        "layernorm": ["layernorm", "--prompt", JAPAN, "--layer", layer],
        "layernorm-set": ["layernorm", "--prompts", "SET", "--layer", layer],
        "patch": ["patch", "--prompt", JAPAN, "--prompt", FRANCE],
        "patch-heads": ["patch", "--prompt", NAMES, "--prompt", NAMES.replace("Mary and John", "John and Mary"),
                        "--target", " John", "--distractor", " Mary", "--site", "heads", "--method", "attribution",
                        "--verify", "4"],
        "effects": ["effects", "--prompt", JAPAN],
        "effects-names": ["effects", "--prompt", NAMES, "--target", " Mary", "--distractor", " John", "--at", "all"],
        "trace": ["trace", "--prompt", JAPAN, "--subject", "Japan", "--samples", "2"],
        "heads-set": ["heads", "--prompts", "SET", "--first-token"],
        "layers-ioi": ["heads", "--prompts", "ioi", "--limit", "3", "--nodes", "layers", "--how", "from"],
        "neurons": ["neurons", "--prompt", JAPAN, "--layer", layer, "--top", "5"],
        "neurons-set": ["neurons", "--prompts", "SET", "--layer", layer, "--top", "5"],
        "study": ["study", "--prompts", "SET", "--figures", "2b,3,14", "--draws", "50"],
    }  # fmt: skip


def run(capsys: Any, arguments: list[str], model: str, tmp_path: Path) -> Any:
    file = tmp_path / "few.csv"
    file.write_text(SET, encoding="utf-8")
    given = [str(file) if a == "SET" else a for a in arguments]
    status = main([*given, *(["--model", model] if given[0] != "doctor" else [model]), "--json"])
    printed = capsys.readouterr()
    assert status == 0, printed.err
    found = json.loads(printed.out)
    if given[0] == "ablate":  # errors are of the machine
        found["tables"]["ledger"] = sorted({row["name"] for row in found["tables"]["ledger"] if row["holds"]})
        found["meta"]["ledger"].pop("max_rel_error")
    if given[0] == "trace":
        for one in (found["meta"]["ledger"], *found["meta"]["ledger"]["checks"]):
            one.pop("max_rel_error")
    return plain(found, {str(tmp_path): "<folder>", model: "<model>"})


def plain(found: Any, names: dict[str, str]) -> Any:
    """What was printed, without what belongs to the machine, numbers to eight digits."""
    if isinstance(found, dict):
        return {k: plain(v, names) for k, v in found.items() if k not in WHAT_CHANGES}
    if isinstance(found, list):
        if len(found) > 60 and isinstance(found[0], dict):  # a long table: its length, its beginning and its end
            found = [{"rows": len(found)}, *found[:40], *found[-15:]]
        return [plain(v, names) for v in found]
    if isinstance(found, str):
        for name, instead in names.items():
            found = found.replace(name, instead)
        return found
    return float(f"{found:.8g}") if isinstance(found, float) else found


def differs(old: Any, new: Any, where: str = "") -> str:
    """The first place at which two records differ, "" where there is none."""
    if isinstance(old, dict) and isinstance(new, dict):
        if old.keys() != new.keys():
            return f"{where}: keys {sorted(old.keys() ^ new.keys())}"
        return next((text for k in old if (text := differs(old[k], new[k], f"{where}.{k}"))), "")
    if isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            return f"{where}: {len(old)} were recorded, {len(new)} came"
        both = enumerate(zip(old, new, strict=True))
        return next((text for i, (a, b) in both if (text := differs(a, b, f"{where}[{i}]"))), "")
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (old, new))
    if numbers and math.isclose(old, new, rel_tol=1e-5, abs_tol=1e-6):
        return ""
    return "" if old == new else f"{where}: {old!r:.200} was recorded, {new!r:.200} came"


def check(name: str, found: Any) -> None:
    file = HERE / f"{name}.json"
    if os.environ.get("VISIT_GOLDEN") == "write":
        file.write_text(json.dumps(found, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    assert not (text := differs(json.loads(file.read_text(encoding="utf-8")), found)), f"{name}{text}"


# ---- every command ---------------------------------------------------------------------------------------------------
@pytest.fixture(autouse=True)
def one_thread_and_no_clock(monkeypatch):
    """Sums of a matrix product depend in their last digits on the number of threads, and on how many lines of a set run
    together, which a clock decides."""
    monkeypatch.setattr("visit.runs.job.AIM", 1000)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", commands("3", "1"))
def test_on_the_embedded_model(name, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("VISIT_CACHE", str(tmp_path / "cache"))  # a run that was kept there would answer as it was
    check(f"mini-{name}", run(capsys, commands("3", "1")[name], "visit-mini", tmp_path))


@pytest.mark.parametrize("name", ["graph", "compare", "ablate", "memory", "layernorm", "neurons", "doctor"])
@pytest.mark.parametrize("family", FAMILIES)
def test_on_random_families(family, name, capsys, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    model = models.small(family, torch.float32)
    model.hf.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    arguments = {"doctor": ["doctor"], **commands("1", "1")}[name]
    found = run(capsys, arguments, str(folder), folder)
    if name == "doctor":  # its figures are of the machine
        found = {"verdict": found["meta"]["verdict"], "ledger": [row["name"] for row in found["tables"]["ledger"]]}
    check(f"{family}-{name}", found)


@pytest.mark.parametrize(
    "name", ["graph", "graph-names", "compare", "ablate", "memory", "layernorm", "neurons", "study"]
)
def test_on_the_trained_model(name, smollm2, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("visit.models.load.load_model", lambda *_: smollm2)
    check(f"smollm2-{name}", run(capsys, commands("23", "4")[name], "smollm2", tmp_path))


# ---- drawings and addresses ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("detail", ["states", "words"])
def test_drawings(detail):
    model = visit.load_model("visit-mini")
    graph = visit.build_flow_graph(
        model, visit.capture(model, JAPAN), layers=[3, 4], keep=visit.Keep(heads=2, mlp_neurons=3)
    )
    graph.meta["versions"] = {}
    for name in ("max_rel_error", "tolerance"):
        graph.meta["ledger"][name] = 0.0
    drawn = visit.draw(graph, detail=detail).replace(f"{{{visit.__version__}}}", "{<version>}")  # in how to cite it
    check(f"drawing-{detail}", drawn.replace("><", ">\n<").splitlines())


ADDRESSES = [
    "", "prompt=a+b&pos=2&target=+c", "model=gpt2&layers=3-5&heads=80+%25&values=6,6&neurons=all&by=contribution",
    "detail=3w,5e&node=L3.head1.value2&pin=L3.head1,-L2.head0&color=entropy&width=contribution&sort=index&parts=attn",
    "prompt=a&prompt_b=b&model_b=gpt2&pos_b=1&align=0:0&view=difference&apart=kl&order=moved",
    "head=L4.head1&measure=norm&sink=hidden&gain=plain&source=3&life=own",
    "norm=ln2&layer=3&lens=raw&mean=vector&set=facts&answered=1",
    "neuron=L3.N4&kind=attn&nsort=contribution&activity=weighted&nshare=1.5&word=+Paris",
    "figures=2b,14&count=20&correct=all&k=10&blocks=1-3&sources=2&second=none&draws=10&seed=3",
    "seed=abc&layer=x&pos=one&by=luck&node=%3Cscript%3E&heads=many&detail=9x",
]  # fmt: skip


def test_addresses():
    from urllib.parse import parse_qsl

    found = {}
    for address in ADDRESSES:
        state, notes = parse(dict(parse_qsl(address)))
        values = {name: value_of(state, name) for name in CONTROLS}
        shown = {name: value if name.startswith("pos") else written(value) for name, value in values.items()}
        found[address] = {"state": shown, "notes": notes, "address": to_params(state)}
    check("addresses", found)
