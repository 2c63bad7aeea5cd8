"""Tables of a recording, computed once more: by the functions that made them, compared number by number.

A row is found again by what it is of (`_ROWS`), not by its place: among nearly equal ones another machine's rounding
orders, and keeps, others. So a few rows may have no partner, and ranks, words and counts of shared words are not
compared: a tie turns them over. Probabilities of the next token are read off the whole distribution.
"""

from __future__ import annotations

import random
import re
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from visit.files.recording_cost import NEURONS, WORDS_OF_A_VECTOR

if TYPE_CHECKING:
    from visit.exact.question import Question
    from visit.files.recording import RecordedRun
    from visit.lenses.linear import Lens

TABLES_CHECKED = 6  # of a prompt, that are computed again, beside its predictions
_ROWS = {
    "predictions": ("pos", "id"), "lens_map": ("depth", "pos"), "heads": ("node",), "memory": ("source_pos",),
    "life": ("layer", "head"), "norm": ("id",), "norm layers": ("node", "norm"), "neurons": ("node",),
    "effects": ("node",),
}  # fmt: skip
_LOST = 0.1  # of the rows of a table, or ten tolerances, may have no partner: others were nearly as large
_DIGITS = re.compile(r"[\d.,−+-]+")


def tables_compared(
    run: RecordedRun, question: Question, lens: Lens | None, allowed: float, seed: int, told_alike: bool
) -> list[dict[str, Any]]:  # fmt: skip
    """A row for the predictions, for some other tables drawn at random, and for the reading in sentences.

    `told_alike`: the model is the recorded one, in its type, so that it tells the same story.
    """
    keys = [key for key in run.results if kind_of(key) in _ROWS and key != "predictions"]
    chosen = ["predictions", *random.Random(seed).sample(keys, min(TABLES_CHECKED, len(keys)))]
    rows = [
        {
            "kind": "table",
            "node": key,
            **table_difference(key, recorded_table(run, key), table_again(question, key, lens, run), allowed),
        }
        for key in chosen
    ]
    return [*rows, _story_compared(run, question, lens)] if told_alike else rows


def kind_of(key: str) -> str:
    """Which kind of table a key names: "norm" of "norm ln1 5"."""
    return key if key == "norm layers" else key.split(" ")[0]


def recorded_table(run: RecordedRun, key: str) -> pd.DataFrame:
    found = run.result(key)
    table: pd.DataFrame = found[1] if isinstance(found, tuple) else found
    return table


def table_again(question: Question, key: str, lens: Lens | None, run: RecordedRun) -> pd.DataFrame:
    """The table of a key, by the function that the recording was made with."""
    from visit.analyses.attention_memory import head_memory, value_life
    from visit.analyses.heads import head_map
    from visit.analyses.neurons import active_neurons
    from visit.analyses.norms import target_shifts, token_shift
    from visit.analyses.overview import lens_map
    from visit.causal.effects import effects
    from visit.text.node_id import NodeId

    model, acts, pos = question.model, question.acts, question.pos
    about = (pos, question.target, question.distractor)
    match key.split(" "):
        case ["predictions"]:
            return _predictions_again(question, run.result("predictions"))
        case ["lens_map", *fitted]:
            return lens_map(model, acts, question.target, lens=lens if fitted else None)
        case ["heads"]:
            return head_map(model, acts, *about, influence=True)
        case ["memory", node]:
            head = NodeId.parse(node)
            assert head is not None
            return head_memory(model, acts, head.layer, head.head, *about, k=WORDS_OF_A_VECTOR)  # type: ignore[arg-type]
        case ["life", source]:
            return value_life(model, acts, int(source), question.target, pos=pos)
        case ["norm", "layers"]:
            return target_shifts(model, acts, pos, question.target)
        case ["norm", norm, *layer]:
            return token_shift(model, acts, int(layer[0]) if layer else None, norm, pos, question.target)
        case ["neurons", layer]:
            return active_neurons(model, acts, int(layer), pos, top=NEURONS, target=question.target,
                                  distractor=question.distractor)  # fmt: skip
        case _:
            return effects(model, acts, "heads", *about)


def _predictions_again(question: Question, table: pd.DataFrame) -> pd.DataFrame:
    """The probabilities of the recorded tokens at their positions, and of the target and the distractor there."""
    from visit.exact.decompose import needed

    likely = needed(question.acts, "logits").to(question.model.wide).softmax(-1).cpu().numpy()
    found = table[["pos", "id"]].assign(prob=likely[table["pos"], table["id"]])
    for role, word in (("target", question.target), ("distractor", question.distractor)):
        if word is not None:
            found[f"{role}_prob"] = likely[table["pos"], word]
    return found


def table_difference(key: str, recorded: pd.DataFrame, again: pd.DataFrame, allowed: float) -> dict[str, Any]:
    """The number of a table that differs most, over the largest of its column (1 at least)."""
    by = list(_ROWS[kind_of(key)])
    one, two = (table.dropna(subset=by).drop_duplicates(by).set_index(by) for table in (recorded, again))
    both = one.index.intersection(two.index)
    missing = {"number": "rows", "recorded": len(one), "replayed": len(both), "difference": float("inf")}
    if len(one) - len(both) > max(_LOST, 10 * allowed) * len(one):
        return {**missing, "tolerance": allowed, "holds": False}
    worst: dict[str, Any] = {"number": "", "recorded": None, "replayed": None, "difference": 0.0}
    for name in one.columns.intersection(two.columns):
        then, now = (_fractions(table.loc[both, name]) for table in (one, two))
        if then is None or now is None or not len(then) or name.startswith("intersection"):
            continue
        apart = np.where(np.isnan(then) & np.isnan(now), 0.0, np.abs(then - now))
        apart = np.nan_to_num(apart, nan=np.inf) / max(1.0, np.nan_to_num(np.abs(now)).max())
        at = int(apart.argmax())
        if apart[at] > worst["difference"]:
            worst = {"number": name, "recorded": float(then[at]), "replayed": float(now[at]),
                     "difference": float(apart[at])}  # fmt: skip
    return {**worst, "tolerance": allowed, "holds": worst["difference"] <= allowed}


def _fractions(column: pd.Series) -> np.ndarray | None:
    """A column's numbers, of lists of probabilities the first ones; None for one that has no fractions."""
    if column.dtype == object and column.name in ("probs", "key_probs", "query_probs"):
        return np.array(
            [max(one, default=np.nan) if isinstance(one, list | tuple) else np.nan for one in column], float
        )
    return column.to_numpy(float) if pd.api.types.is_float_dtype(column) else None


def _story_compared(run: RecordedRun, question: Question, lens: Lens | None) -> dict[str, Any]:
    """Whether the reading says the same, but for the last digits of its numbers."""
    from visit.narrate.flow import gathered, story_of

    facts = gathered(question.model, question.acts, question.pos, question.target, question.distractor, lens)
    then, now = (_sentences(one) for one in (run.result("story"), story_of(facts)))
    pairs = zip_longest(then, now, fillvalue="")
    apart = next(((a, b) for a, b in pairs if _DIGITS.sub("", a) != _DIGITS.sub("", b)), None)
    same, (one, two) = apart is None, apart or ("", "")
    return {"kind": "reading", "node": "story", "number": "words", "recorded": one, "replayed": two,
            "difference": 0.0 if same else float("inf"), "tolerance": 0.0, "holds": same}  # fmt: skip


def _sentences(story: Any) -> list[str]:
    return ["".join(piece[0] for piece in sentence) for sentence in story]
