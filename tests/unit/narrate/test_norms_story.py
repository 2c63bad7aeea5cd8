"""What is said of a norm and of neurons are the numbers of their tables."""

from __future__ import annotations

import models
import pytest

from visit import capture
from visit.analyses.neurons import active_neurons
from visit.analyses.norms import token_shift
from visit.narrate.norms import neuron_story, norm_story
from visit.text.numbers import signed
from visit.text.visible import quoted


def told(sentences) -> str:
    return " ".join("".join(piece for piece, _ in sentence) for sentence in sentences)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_norm_is_told_by_its_table(name):
    model = models.small(name)
    table = token_shift(model, capture(model, [5, 17, 3, 99]), 1)
    said = told(norm_story(table, "ln1 of layer 1"))
    target = table[table["is_target"]].iloc[0]
    assert f"{quoted(target['token'])} " in said and f"rank {target['before_rank']:,}" in said
    loses, gains = table.sort_values("falls").iloc[0], table.sort_values("rises").iloc[0]
    assert f"{quoted(loses['token'])} loses most" in said and f"{quoted(gains['token'])} gains most" in said


def test_neurons_are_told_by_their_table():
    model = models.small("gpt2")
    table = active_neurons(model, capture(model, [5, 17, 3, 99]), 1, top=6)
    rows = table[table["neuron"].notna()]
    said = told(neuron_story(table, "x", "mlp"))
    most, least = rows.loc[rows["contribution"].idxmax()], rows.loc[rows["contribution"].idxmin()]
    assert f"N{rows.loc[rows['norm'].idxmax(), 'neuron']} writes most here" in said
    assert (f"N{most['neuron']} pushes towards “x” most ({signed(most['contribution'])}" in said) == (
        most["contribution"] > 0
    )
    assert (f"N{least['neuron']} away from “x” most" in said) == (least["contribution"] < 0)
