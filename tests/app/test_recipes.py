"""*Code*: the command and the lines of Python of a page give the numbers that the page shows."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
from dataclasses import replace

import pandas as pd
import pytest

import visit
from visit.__main__ import main
from visit.app.address import parse
from visit.app.page_files import notebook_cells
from visit.app.recipe_lines import Looked
from visit.app.recipes import HEADINGS, recipe
from visit.app.state import State
from visit.files.notebook_file import notebook_file

NAMES = "When Mary and John went to the store, John gave a drink to"


def shown(page: str, address: dict[str, str] | None = None, **looked):
    state, notes = parse(address or {})
    assert not notes
    return recipe(page, state, Looked(**looked))


def ran(found) -> dict:
    """What the script leaves behind."""
    names: dict = {}
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(found.script, names)
    assert out.getvalue()
    return names


def told(command: str) -> dict[str, pd.DataFrame]:
    """The tables that the command prints."""
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "visit"]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main([*words[3:], "--json"]) == 0
    whole = json.loads(out.getvalue())
    return {name: pd.DataFrame(rows) for name, rows in (whole.get("tables") or whole).items() if name != "meta"}


def same(a: pd.DataFrame, b: pd.DataFrame, columns: list[str]) -> None:
    for name in columns:
        assert a[name].astype(float).to_numpy() == pytest.approx(
            b[name].astype(float).to_numpy(), abs=1e-6, nan_ok=True
        ), name


ODD = {"prompt": 'He said "don\'t", and\nleft\\', "pos": "3"}


def test_the_flow_page_as_command_and_as_code():
    kept = {
        "prompt": NAMES, "target": " Mary", "distractor": " John", "layers": "3-4", "heads": "3", "values": "80 %",
        "neurons": "2,2", "rows": "all", "by": "contribution", "pin": "L4.head7,-L3.head0", "pos": "-2",
    }  # fmt: skip
    for address in ({}, kept, ODD):
        found = shown("flow", address)
        graph, table = ran(found)["graph"], told(found.command)["nodes"]
        assert list(graph.nodes["id"]) == list(table["id"])
        same(graph.nodes, table, ["norm", "contribution", "prob"])
        assert graph.meta["prompt"] == address.get("prompt", State().prompt)


def test_the_graph_of_the_recipe_is_that_of_the_page():
    from visit.app import recipe_lines

    state, _ = parse({"heads": "2", "values": "1", "layers": "4"})
    keep = eval(recipe_lines.keep_call(state), {"visit": visit})
    assert keep == visit.Keep(heads=2, values=1)


def test_two_prompts_as_command_and_as_code():
    found = shown("compare", {"prompt_b": "The capital of France is the city of", "layers": "4", "align": "3:3"})
    result, table = ran(found)["found"], told(found.command)["changes"]
    assert list(result.tables["changes"]["id"]) == list(table["id"])
    same(result.tables["changes"], table, ["difference"])


def test_one_word_for_one_side_is_said_not_to_be_a_command():
    found = shown("compare", {"prompt_b": "a", "target_b": " Paris"})
    assert not found.command
    assert "one has its own" in found.missing
    assert "target=' Paris'" in found.script


def test_changes_as_command_and_as_code():
    found = shown("whatif", {"edits": "L4.head1~zero@-1;!L2.mlp_out~zero@all"})
    names, table = ran(found), told(found.command)
    same(
        names["changed"].table,
        table["answers"] if "answers" in table else next(iter(table.values())),
        ["before", "after"],
    )
    found = shown("whatif", {"edits": "L4.head1~scale0.5@all;L3.attn_out~scale0.5@all"})
    same(ran(found)["changed"].table, next(iter(told(found.command).values())), ["before", "after"])
    found = shown("whatif", {"edits": "L4.head1~from@all", "prompt_b": "The capital of Egypt is the city of"})
    same(ran(found)["changed"].table, next(iter(told(found.command).values())), ["before", "after"])
    found = shown("whatif", {"edits": "L4.head1~zero@-1;L3.head1~scale2@-1"})
    assert not found.command
    assert "differ" in found.missing
    assert len(ran(found)["changed"].edits) == 2


def test_every_part_as_command_and_as_code():
    found = shown("whatif", {"units": "neurons", "replaced": "mean", "where": "all"})
    effects, table = ran(found)["effects"], told(found.command)["effects"]
    assert list(effects["node"]) == list(table["node"])
    same(effects, table, ["d_logit", "contribution"])


def test_memory_norm_and_neurons_as_command_and_as_code():
    found = shown("memory", {"target": " Tokyo"}, layer=4, head=1)
    same(ran(found)["memory"], told(found.command)["memory"], ["pattern", "contribution"])
    found = shown("layernorm", {"lens": "without"}, layer=2, norm="ln2")
    same(ran(found)["shift"], next(iter(told(found.command).values())), ["before_prob", "after_prob"])
    found = shown("neurons", {"nsort": "contribution"}, layer=7)
    table = next(iter(told(found.command).values()))
    same(ran(found)["neurons"].head(10), table.head(10), ["coefficient", "contribution"])


def test_a_trace_as_command_and_as_code():
    found = shown("trace", {"samples": "2", "noise_seed": "3", "window": "3", "target": " Tokyo"}, subject=(3,))
    trace, table = ran(found)["trace"], told(found.command)["trace"]
    same(trace, table, ["prob", "effect"])
    assert (trace.attrs["samples"], trace.attrs["seed"], trace.attrs["window"]) == (2, 3, 3)


def test_heads_over_a_set_as_command_and_as_code():
    found = shown("heads", {"heads_set": "facts", "lines": "16", "asks": "layers", "instead": "mean"})
    heads = ran(found)["heads"]
    table = next(iter(told(found.command).values()))
    same(heads, table, ["contribution", "effect"])
    assert not shown("heads", {"heads_set": "own"}).steps
    kept = shown("heads", {"heads_set": "facts", "lines": "16", "answered": "1", "asks": "layers"})
    assert not kept.command and kept.missing and ran(kept)["heads"].attrs["before"]["top"] == 1


IOI = {"heads_set": "ioi", "lines": "16", "asks": "layers"}


def test_paths_as_second_command_and_as_last_step(monkeypatch):
    """The command can be resumed, so a clock decides how many lines run together, and another number rounds otherwise:
    of a logit of 20 float32 keeps 2e-6. Here all lines run together, as in the script."""
    monkeypatch.setattr("visit.runs.job.AIM", 1000)
    assert "visit.paths" not in shown("heads", IOI).script, "nobody has run them"
    own = {"ends": "own", "receiving": "L4.head1,L4.head7", "into": "v", "path_at": "distractor"}
    for found in (shown("heads", IOI, paths=True), shown("heads", IOI | own)):
        heads, paths = found.command.split("\n")
        assert "--limit 16" in heads and " paths " in paths
        table, printed = ran(found)["paths"], told(paths)["paths"]
        assert table.attrs["prompts"] == 16
        same(table, printed, ["effect", "low", "high"])
        assert list(table["receiver"]) == list(printed["receiver"])
    assert (table.attrs["kind"], table.attrs["sender_pos"]) == ("v", "distractor")
    assert "visit.paths" not in shown("heads", {"heads_set": "facts"}, paths=True).script, "it has no partners"


def test_the_movers_of_paths_are_those_of_the_table_of_heads():
    from visit.app.head_paths import _movers_of

    found = shown("heads", {"heads_set": "ioi", "lines": "16", "ends": "movers"})
    assert "\n" not in found.command, "the command line cannot name them before they are measured"
    heads = pd.DataFrame(
        {
            "node": ["L2.head1", "L0.head3", "L2.head0", "L1.head4"],
            "role": ["mover", "mover", "mover", ""],
            "layer": [2, 0, 2, 1],
            "head": [1, 3, 0, 4],
            "contribution": [1.0, 9.0, 2.0, 7.0],
        }
    )
    names = {"heads": heads}
    exec("\n".join(found.steps[-1].lines[:-1]), names)
    assert names["movers"] == _movers_of(heads) == ["L2.head0", "L2.head1"]


def test_the_opened_patch_is_a_step_of_two_prompts():
    found = shown("compare", {"prompt_b": "The capital of France is the city of", "opened": "patch",
                              "patch": "heads_all", "target_b": " Paris", "target": " Tokyo"})  # fmt: skip
    table = ran(found)["patched"]
    assert (table.attrs["site"], table.attrs["at"]) == ("heads", "all")
    assert (table.attrs["target"]["token"], table.attrs["distractor"]["token"]) == (" Paris", " Tokyo")


def test_a_study_as_code():
    found = shown("study", {"count": "20", "figures": "2b", "k": "10", "blocks": "1,3-4", "draws": "20"})
    assert ran(found)["study"].tables["2b"]["layer"].dropna().unique().tolist() == [1, 3, 4]
    assert not found.command
    whole = shown("study", {"count": "all", "figures": "2b"})
    assert whole.command == "python -m visit study --prompts facts --figures 2b --out study"
    assert not shown("study", {"set": "own"}).steps


@pytest.mark.parametrize("page", HEADINGS)
def test_every_page_of_numbers_has_a_short_recipe_that_is_python(page):
    found = shown(page, ODD, layer=1, head=2, subject=(1,))
    compile(found.script, page, "exec")
    assert 3 <= sum(len(step.lines) + len(step.shows) for step in found.steps) <= 16
    if found.command:
        assert "\n" not in shlex.split(found.command)[0]


def test_pages_without_numbers_have_none():
    assert recipe("glossary", State(), Looked()) is None


def test_a_prompt_is_data():
    for text in ('"; import os; os.abort() #', "$(touch /tmp/no)`id`", "--out=/etc/passwd", "-1", "'''"):
        found = shown("flow", {"prompt": text})
        assert ran(replace(found, steps=found.steps[:2] + found.steps[-1:]))["acts"].prompt == text
        assert any(word in (text, f"--prompt={text}") for word in shlex.split(found.command))


def test_chat_and_a_hub_revision_are_told():
    state, _ = parse({"model": "org/model", "prompt": "hi", "chat": "1", "system": "be brief"})
    found = recipe("flow", state, Looked(revision="a" * 40, fitted=True))
    assert f"visit.load_model('org/model', revision='{'a' * 40}')" in found.script
    assert "visit.chat_prompt(model, 'hi', system='be brief')" in found.script
    assert "lens=lens" in found.script
    assert "--chat --system 'be brief'" in found.command
    assert f"--revision {'a' * 40}" in found.command
    assert "--lens fitted" in found.command


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom_and_draws_the_page():
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    found = shown("flow", {"layers": "4"})
    made = nbformat.from_dict(notebook_file("visit-mini", notebook_cells(found, [], {}), {}))
    nbformat.validate(made)
    done = nbclient.NotebookClient(made, timeout=240, kernel_name="python3").execute()
    drawn = [out["data"] for cell in done.cells if cell.cell_type == "code" for out in cell.outputs if "data" in out]
    assert [("sandbox=" in data.get("text/html", "")) for data in drawn] == [True, True]
    graph = ran(found)["graph"]
    assert "L4.head1" in graph.by_id


def test_the_popover_of_a_page_holds_the_recipe_of_what_is_shown():
    from pathlib import Path

    from streamlit.testing.v1 import AppTest

    app = AppTest.from_file(str(Path(visit.__file__).parents[1] / "streamlit_app.py"), default_timeout=120)
    app.switch_page("pages/memory.py")
    app.query_params["head"] = "L3.head2"
    app.run()
    session = app.session_state["visit"]
    assert not app.exception
    assert (session.looked["layer"], session.looked["head"]) == (3, 2)
    found = recipe("memory", session.state, Looked(**session.looked))
    assert found.command.endswith("--layer 3 --head 2")
