"""The map of paths and its sentences: signs, faint cells, a scale that makes nothing look like much, heads named."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from visit.figures.path_patching import paths_chart, paths_grid
from visit.figures.svg import chart_svg
from visit.narrate.paths import heads_together, path_pieces, path_story, through_words


def table(effects, half=0.1, receiver="together", prompts=16):
    """A table of `visit.paths` of two heads a layer."""
    rows = [
        (f"L{n // 2}.head{n % 2}", receiver, e, e - half, e + half, n // 2, n % 2, math.nan)
        for n, e in enumerate(effects)
    ]  # fmt: skip
    found = pd.DataFrame(rows, columns=["sender", "receiver", "effect", "low", "high", "layer", "head", "direct"])
    heads = ["L9.head0", "L9.head1", "L9.head7"]
    groups = {"together": heads, "logits": [], "L9.kv_head1": ["L9.head2", "L9.head3"], "L9.head0": heads[:1]}
    found.attrs = {"prompts": prompts, "difference": 5.0, "receivers": groups, "kind": "q", "model": "m"}
    return found


def test_what_falls_with_the_partners_value_spoke_for_the_target_and_what_is_unsure_is_faint():
    cells = paths_grid(table([-1.0, 0.5, -0.05, 0.0]), "together", "a map", "L0.head1").cells.set_index("id")
    assert cells["hue"].tolist() == ["p", "n", "p", "n"]
    assert cells.loc["L0.head0", "strength"] == 1 and cells.loc["L1.head0", "strength"] < 0.1
    assert cells["text"].tolist() == ["−1.00", "+0.50", "", ""]
    assert cells["framed"].tolist() == [False, True, False, False]


def test_nothing_does_not_look_like_much():
    grid = paths_grid(table([-1e-4, 2e-4], half=1e-5), "together", "a map")
    assert grid.cells["strength"].max() < 0.1 and grid.scale[-1][1].startswith("−0.05")
    assert path_story(table([-1e-4, 2e-4], half=1e-5)).startswith("No head reaches the answer through the queries of")


def test_a_sentence_names_the_largest_with_bands_and_bounds_the_rest():
    pieces = path_pieces(table([-1.0, 0.5, -0.3, 0.02]))
    assert "".join(text for text, _ in pieces) == (
        "L0 H0 reaches the answer through the queries of L9 H0, H1 and H7: with its partner’s value there the answer "
        "changes by −1.0 [−1.1, −0.90] logits of 5.0, on average over 16 prompts; then L0 H1 +0.50 [0.40, 0.60], L1 H0 "
        "−0.30 [−0.40, −0.20]; the other head stays within ±0.02."
    )
    assert [node for _, node in pieces if node] == ["L0.head0", "L0.head1", "L1.head0"]


def test_what_may_be_nothing_is_not_told_as_a_path():
    said = path_story(table([-1.0, 0.5, -0.3, 0.02], half=0.6))
    assert said.startswith("L0 H0 reaches the answer")
    assert "L0 H1" not in said and said.endswith("the other 3 heads stay within ±0.50.")
    unsure = path_story(table([-1.0, 0.5, -0.3, 0.02], half=1.5))
    assert unsure.startswith("L0 H0 may reach the answer") and "(a band that holds 0)" in unsure


def test_the_bound_of_the_rest_is_never_below_one_of_them():
    said = path_story(table([-2.0, -1.431, 1.0, -0.9], half=2.5))
    assert said.endswith("the other 3 heads stay within ±1.5.")


@pytest.mark.parametrize(
    ("receiver", "words"),
    [
        ("logits", "past all other heads"),
        ("L9.head0", "through the query of L9 H0"),
        ("L9.kv_head1", "which L9 H2 and H3 share"),
    ],
)
def test_how_paths_go_is_said(receiver, words):
    assert through_words(table([1.0], receiver=receiver), receiver).endswith(words)


def test_many_heads_are_counted_by_layer():
    assert heads_together(["L3.head1"]) == "L3 H1"
    assert heads_together(["L3.head1", "L4.head2"]) == "L3 H1 and L4 H2"
    assert heads_together([f"L3.head{n}" for n in range(7)]) == "7 heads of layer 3"
    assert heads_together([f"L{n}.head0" for n in range(2, 10)]) == "8 heads of layers 2 to 9"


def test_the_chart_is_drawn_with_its_title_and_every_layer():
    drawn = chart_svg(paths_chart(table([-1.0, 0.5, -0.3, 0.2]), "together", ["Who says it", "in logits"]), "a map")
    for words in ("Who says it", "in logits", "layer 0", "layer 1", "H1", "−1.00"):
        assert words in drawn
