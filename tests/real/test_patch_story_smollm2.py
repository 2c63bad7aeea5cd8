"""On SmolLM2 the sentences of a map of patches are those that the measured values of two known pairs ask for."""

from __future__ import annotations

import visit
from visit.narrate.patching import patch_story


def told(table) -> str:
    return " ".join("".join(piece for piece, _ in sentence) for sentence in patch_story(table))


def test_the_capital_goes_from_the_country_to_the_last_position(smollm2):
    prompts = "The capital of Japan is the city of", "The capital of France is the city of"
    said = told(visit.patch(smollm2, *prompts))
    assert "B’s “·France” put where A has “·Japan” (position 3) carries nearly the whole answer up to block 23" in said
    assert "From block 24 on the last position, “·of” (position 7), carries it: 69 % before block 24, 80 %" in said
    assert told(visit.patch(smollm2, *prompts, "heads")).startswith(
        "Of all 270 heads, B’s value of L23 H4 moves the answer most: 84 % of the way; next L29 H1 (24 %)"
    )


def test_the_second_name_carries_the_answer_until_heads_at_the_end_have_read_it(smollm2):
    sentence = "When Mary and John went to the store, {} gave a drink to"
    prompts = [sentence.format(name) for name in ("John", "Mary")]
    said = told(visit.patch(smollm2, *prompts))
    assert "B’s “·Mary” put where A has “·John” (position 9) carries nearly the whole answer up to block 19" in said
    assert "From block 24 on the last position, “·to” (position 13), carries it: 98 % before block 24" in said
    heads = told(visit.patch(smollm2, *prompts, "heads"))
    assert "L23 H3 moves the answer most: 61 % of the way; next L29 H1 (26 %), L20 H0 (16 %), L19 H2 (12 %)" in heads
    assert "Away from B’s answer: L29 H0 (−20 %), L24 H4 (−18 %)" in heads
