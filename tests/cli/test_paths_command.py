"""`python -m visit paths` tells what `visit.paths` finds, draws it, forecasts it, and refuses in sentences."""

from __future__ import annotations

import json

import pytest

from visit import load_model, paths
from visit.__main__ import main

ROWS = """prompt,target,distractor,abc
"When Mary and John went to the store, John gave a drink to", Mary, John,"When Paul and Sarah went to the store, David gave a drink to"
"Because Robert and Eric met in the beach, Robert handed a kiss to", Eric, Robert,"Because Sarah and Paul met in the beach, David handed a kiss to"
"no partner", Eric, Robert,
"""  # noqa: E501


@pytest.fixture
def prompts(tmp_path):
    (tmp_path / "set.csv").write_text(ROWS)
    return tmp_path / "set.csv"


@pytest.fixture
def command(capsys, prompts, tmp_path, monkeypatch):
    monkeypatch.setenv("VISIT_CACHE", str(tmp_path))

    def run(*arguments):
        status = main(["paths", "--prompts", str(prompts), *arguments])
        out = capsys.readouterr()
        return status, out.out, out.err

    return run


def test_it_says_who_reaches_the_answer_and_lists_the_largest(command):
    status, out, err = command()
    assert status == 0 and err == ""
    assert "left out: line 4: no partner" in out
    assert (
        " the answer past all other heads: with its partner’s value there the answer changes by " in out
        and "on average over 2 prompts" in out
    )
    assert "direct" in out


def test_json_is_the_librarys_table(command, prompts):
    _, out, _ = command("--json", "--receivers", "L6.head1,L7.head0", "--kind", "v", "--sender-pos", "distractor")
    found = json.loads(out, parse_constant=lambda c: pytest.fail(f"{c} is not JSON"))
    places = "distractor", "distractor"
    table = paths(load_model("visit-mini"), prompts, None, ["L6.head1", "L7.head0"], "v", *places)
    rows = found["tables"]["paths"]
    assert [row["sender"] for row in rows] == table["sender"].tolist()
    assert [row["effect"] for row in rows] == pytest.approx(table["effect"].tolist(), abs=1e-5)
    assert found["meta"]["receivers"]["together"] == ["L6.head1", "L7.head0"] and found["meta"]["prompts"] == 2


@pytest.mark.parametrize("ending", ["csv", "svg", "png", "html"])
def test_it_writes_by_the_ending(command, tmp_path, ending):
    status, _, err = command("--out", str(tmp_path / f"p.{ending}"), "--receivers", "L2.head1")
    written = tmp_path / ("p-paths.csv" if ending == "csv" else f"p.{ending}")
    assert status == 0 and "wrote" in err and written.stat().st_size > 500
    if ending in ("svg", "html"):
        text = written.read_text()
        assert "through the query of L2 H1" in text and "layer 1" in text and "layer 2" not in text


def test_the_cost_is_said_without_doing_it(command, monkeypatch):
    monkeypatch.setattr("visit.causal.path_patching.line_effects", lambda *_: pytest.fail("it was done"))
    status, out, _ = command("--cost")
    assert status == 0 and out.startswith("2 prompts: about 1 s")


def test_a_stopped_run_goes_on_from_the_last_prompt_that_was_done(command, monkeypatch):
    from visit.causal import path_patching

    whole, real, done = command("--json")[1], path_patching.line_effects, []

    def once(*asked):
        if done:
            raise KeyboardInterrupt
        done.append(1)
        return real(*asked)

    monkeypatch.setattr(path_patching, "line_effects", once)
    status, _, err = command("--json", "--receivers", "L3.head1")
    assert status == 130 and "goes on from the last prompt" in err
    done.clear()  # one more is left
    status, out, _ = command("--json", "--receivers", "L3.head1")
    assert status == 0 and json.loads(out)["meta"]["prompts"] == 2
    assert command("--json")[1] == whole  # of what is done nothing is run again


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--receivers", "L0.head1"), "layer 0"),
        (("--sender-pos", "-2"), "logits are read at position"),
        (("--abc", "nowhere.csv"), "no file"),
        (("--sender-pos", "second"), "no column 'second'"),
        (("--out", "x.gif"), ".svg"),
    ],
)
def test_a_mistake_is_one_sentence(command, arguments, says):
    status, _, err = command(*arguments)
    assert status == 2 and err.startswith("visit: ") and says in err and "Traceback" not in err
