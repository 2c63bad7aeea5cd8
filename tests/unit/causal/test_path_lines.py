"""What path patching takes and refuses: partners, words, positions, receivers; and what a mean over a set is."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from visit import VisitError, load_model, paths
from visit.causal.path_lines import path_lines, receivers_of
from visit.causal.path_patching import path_job
from visit.runs.job import finish
from visit.runs.moments import student
from visit.runs.sums import merge

LINES = [
    ("When Mary and John went to the store, John gave a drink to", " Mary", " John"),
    ("Then Daniel and Tom had a long talk at the station, Tom passed a kiss to", " Daniel", " Tom"),
    ("Because Robert and Eric met in the beach, Robert handed a kiss to", " Eric", " Robert"),
]


def partner(prompt, target, distractor):
    """The same sentence with three other names."""
    front, back = prompt.rsplit(distractor.strip(), 1)
    return f"{front.replace(target.strip(), 'Paul').replace(distractor.strip(), 'Sarah')}David{back}"


TABLE = pd.DataFrame(LINES, columns=["prompt", "target", "distractor"])
TABLE = TABLE.assign(abc=[partner(*line) for line in LINES], near=["-2", "-2", "-2"])


@pytest.fixture(scope="module")
def mini():
    return load_model("visit-mini")


@pytest.fixture(scope="module")
def each_line(mini):
    return [paths(mini, TABLE.iloc[[n]]) for n in range(3)]


def test_an_effect_is_the_mean_over_the_lines_with_students_band(mini, each_line):
    table, values = paths(mini, TABLE), np.array([one["effect"] for one in each_line])
    assert list(table)[:5] == ["sender", "receiver", "effect", "low", "high"]
    assert table["effect"].tolist() == pytest.approx(values.mean(0).tolist(), abs=1e-5)
    half = student(2) * values.std(0, ddof=1) / np.sqrt(3)
    assert (table["high"] - table["effect"]).tolist() == pytest.approx(half.tolist(), abs=1e-4)
    assert each_line[0]["low"].isna().all()
    assert table.attrs["prompts"] == 3 and table.attrs["notes"] == []
    assert table.attrs["difference"] == pytest.approx(np.mean([one.attrs["difference"] for one in each_line]), abs=1e-5)


def test_parts_of_a_set_merge_to_the_whole_and_a_stopped_run_goes_on(mini):
    to = receivers_of(mini, ["L3.head1", "L5.head0"], "q")
    lines, _ = path_lines(mini, TABLE, receivers=to)
    whole = finish(path_job(mini, lines, to, "q"))
    job, rest = (path_job(mini, part, to, "q") for part in (lines[:1], lines[1:]))
    finish(job), finish(rest)
    again = path_job(mini, lines, to, "q")
    again.load(job.state())
    again.update(lines[1:])
    for found in (again.snapshot(), path_job(mini, lines, to, "q").result(merge(job.sums, rest.sums))):
        for name in ("effect", "low", "high"):
            assert found[name].tolist() == pytest.approx(whole[name].tolist(), abs=1e-4)


@pytest.mark.parametrize("form", ["lists", "second table", "file and column", "two files", "columns of another name"])
def test_every_form_of_a_set_with_partners_gives_the_same(mini, form, tmp_path):
    expected = paths(mini, TABLE)["effect"].tolist()
    bare = TABLE[["prompt", "target", "distractor"]]
    TABLE.to_csv(tmp_path / "set.csv", index=False)
    TABLE[["abc"]].rename(columns={"abc": "prompt"}).to_csv(tmp_path / "partners.csv", index=False)
    given = {
        "lists": (bare.to_dict("records"), TABLE["abc"].tolist()),
        "second table": (bare, TABLE[["abc"]].rename(columns={"abc": "prompt"})),
        "file and column": (tmp_path / "set.csv", "abc"),
        "two files": (str(tmp_path / "set.csv"), str(tmp_path / "partners.csv")),
        "columns of another name": (TABLE.rename(columns={"abc": "partner"}), "partner"),
    }[form]
    assert paths(mini, *given)["effect"].tolist() == pytest.approx(expected, abs=1e-6)


def test_a_position_is_the_end_a_number_or_named_by_a_column(mini):
    """A column holds a number, or a word: of a repeated one its last place is meant."""

    def lines(pos):
        return [line.pos for line in path_lines(mini, TABLE, None, receivers_of(mini, "L3.head1", "k"), pos, pos)[0]]

    ends = [line.pos for line in path_lines(mini, TABLE)[0]]
    assert lines("near") == [end - 1 for end in ends] == lines(-2)
    words = [mini.tokenizer.tokenize(p) for p in TABLE["prompt"]]
    second = [
        max(i for i, w in enumerate(ws) if w.endswith(line[2].strip())) for ws, line in zip(words, LINES, strict=True)
    ]
    assert lines("distractor") == second and all(0 < s < e for s, e in zip(second, ends, strict=True))


def test_a_line_that_names_its_position_is_looked_at_there(mini):
    cut = TABLE.assign(prompt=TABLE["prompt"] + " the store", abc=TABLE["abc"] + " the store", pos=-3)
    assert paths(mini, cut)["effect"].tolist() == pytest.approx(paths(mini, TABLE)["effect"].tolist(), abs=1e-6)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"target": None}, "no target"),
        ({"distractor": None}, "no distractor"),
        ({"abc": None}, "no partner"),
        ({"target": " unquestionably"}, "first"),
        ({"distractor": " Mary"}, "must differ"),
        ({"abc": "Paul and Sarah"}, "as many tokens"),
        ({"pos": 99}, "position must be"),
        ({"pos": 3.5}, "position must be"),
    ],
)
def test_what_a_line_lacks_is_said_with_its_line_and_the_others_run(mini, change, reason):
    rows = TABLE.to_dict("records")
    rows[0] |= change
    lines, notes = path_lines(mini, rows)
    assert len(lines) == 2 and len(notes) == 1 and str(notes[0]).startswith("line 1: ") and reason in str(notes[0])
    with pytest.raises(VisitError, match=r"No line can be used.*line 1"):
        path_lines(mini, rows[:1])


def test_of_a_word_of_several_tokens_the_first_one_is_taken_where_that_is_asked_for(mini):
    """As every other question over a set offers it; without it the line is left out, and says so."""
    rows = TABLE.to_dict("records")
    rows[0] |= {"target": " Maryland"}
    first = mini.tokenizer.encode(" Maryland", add_special_tokens=False)
    assert len(first) > 1
    lines, notes = path_lines(mini, rows)
    assert len(lines) == 2 and "one token" in str(notes[0])
    lines, notes = path_lines(mini, rows, first_token=True)
    assert len(lines) == 3 and not notes and lines[0].target == first[0]
    known = [{**row, "target": mini.vocabulary[line.target]} for row, line in zip(rows, lines, strict=True)]
    asked = paths(mini, rows, first_token=True)["effect"]
    assert asked.tolist() == pytest.approx(paths(mini, known)["effect"].tolist())


def test_lines_of_other_lengths_stand_side_by_side_in_one_set(mini):
    lines, notes = path_lines(mini, TABLE)
    assert len({len(line.ids) for line in lines}) > 1 and not notes


@pytest.mark.parametrize(
    ("receivers", "kind", "reason"),
    [
        ([], "q", "at least one"),
        ("L0.head1", "q", "layer 0"),
        ("L99.head1", "q", "Layers of"),
        ("L3.head99", "q", "Heads of"),
        ("L3.mlp_out", "q", "receiver is"),
        ("nonsense", "q", "receiver is"),
        ("L3.kv_head1", "q", "Queries belong"),
        ("L3.kv_head99", "k", "Key/value heads"),
        ("logits", "z", "kind must be"),
    ],
)
def test_a_receiver_that_cannot_be_is_refused(mini, receivers, kind, reason):
    with pytest.raises(VisitError, match=reason):
        receivers_of(mini, receivers, kind)


def test_several_heads_are_taken_one_by_one_and_together(mini):
    found = receivers_of(mini, ["L5.head2", "logits", "L3.head1", "L5.head2"], "q")
    assert [one.name for one in found] == ["together", "L5.head2", "logits", "L3.head1"]
    assert found[0].heads == ((3, 1), (5, 2))


def test_positions_that_differ_are_refused_for_nothing_passes_between_them(mini):
    with pytest.raises(VisitError, match="nothing passes from one position to another"):
        paths(mini, TABLE, receivers="L3.head1", kind="v", sender_pos="distractor")
    with pytest.raises(VisitError, match="logits are read at position"):
        paths(mini, TABLE, sender_pos=-2, receiver_pos=-2)


def test_a_column_of_a_file_names_positions_and_partners(mini, tmp_path):
    TABLE.rename(columns={"abc": "Partner"}).to_csv(tmp_path / "set.csv", index=False)
    TABLE.rename(columns={"abc": "Partner"}).to_json(tmp_path / "set.jsonl", orient="records", lines=True)
    to = receivers_of(mini, "L3.head1", "k")
    expected = [line.pos for line in path_lines(mini, TABLE, None, to, "near", "near")[0]]
    for name in ("set.csv", "set.jsonl"):
        lines, notes = path_lines(mini, tmp_path / name, "partner", to, "near", "near")
        assert [line.pos for line in lines] == expected and not notes


def test_a_column_that_is_not_there_is_named_with_those_that_are(mini):
    with pytest.raises(VisitError, match="no column 'second'; it has prompt, target, distractor, abc, near"):
        paths(mini, TABLE, sender_pos="second", receiver_pos="second")


def test_partners_that_do_not_stand_side_by_side_are_refused(mini):
    with pytest.raises(VisitError, match="3 prompts and 2 partners"):
        paths(mini, TABLE, TABLE["abc"].tolist()[:2])
    with pytest.raises(VisitError, match="needs a column prompt"):
        paths(mini, TABLE[["target"]])
    with pytest.raises(VisitError, match="no file"):
        paths(mini, "nowhere.csv")


def test_only_heads_that_stand_before_a_receiver_have_rows(mini):
    table = paths(mini, TABLE.iloc[:1], receivers=["L3.head1", "L5.head0", "logits"])
    rows = table.groupby("receiver")["layer"].max().to_dict()
    assert rows == {"L3.head1": 2, "L5.head0": 4, "together": 4, "logits": mini.n_layers - 1}
    assert table.loc[table["receiver"] != "logits", "direct"].isna().all()
