"""One definition per term: it has a place in the glossary, and sentences lead to it from the words they use."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from visit.figures.terms import picture
from visit.text.glossary import FORMS, GLOSSARY, GROUPS, NAMES, anchor_of, name_of, terms_in


def spoken(*sentences):
    told = [[piece if isinstance(piece, tuple) else (piece, None) for piece in sentence] for sentence in sentences]
    return [(told[s.sentence][s.piece][0][s.start : s.end], s.term) for s in terms_in(told)]


def test_every_term_stands_in_one_group_under_a_name_and_an_anchor_of_its_own():
    grouped = [term for terms in GROUPS.values() for term in terms]
    assert sorted(grouped) == sorted(GLOSSARY)
    assert len({anchor_of(term) for term in grouped}) == len({name_of(term) for term in grouped}) == len(grouped)
    assert not any(character.isspace() for term in grouped for character in anchor_of(term))
    assert set(NAMES) | set(FORMS.values()) <= set(GLOSSARY)


@pytest.mark.parametrize("term", GLOSSARY)
def test_a_definition_is_made_of_whole_sentences(term):
    assert GLOSSARY[term][0].isupper() or GLOSSARY[term][0].isdigit()
    assert GLOSSARY[term].endswith((".", ")"))


def test_a_term_is_explained_where_it_is_first_said_and_only_there():
    assert spoken(["All heads and two MLPs."], ["A head, an MLP."]) == [("heads", "head"), ("MLPs", "mlp")]


def test_the_longest_form_counts_and_parts_of_words_do_not():
    assert spoken(["As the fitted lens reads the residual stream ahead of us"]) == [
        ("fitted lens", "fitted lens"), ("residual stream", "residual stream"),
    ]  # fmt: skip


def test_a_token_in_quotation_marks_is_no_term():
    assert spoken(["It takes it from “·head” (pattern 0.96), whose “stream of logits” it is"]) == [
        ("pattern", "pattern")
    ]


def test_a_piece_with_a_node_leaves_the_words_after_it_their_note():
    found = spoken(["It reads ", ("head L4 H1", "L4.head1")], ["Two heads.", " Two heads."])
    assert found == [("head", "head"), ("heads", "head")]


def test_places_are_counted_in_characters_and_the_text_is_as_it_was():
    assert spoken(["🗻🗻 “東” has many logits"]) == [("logits", "logit")]


def test_pictures_are_drawings_that_say_what_they_show_and_fetch_nothing():
    drawn = {term: svg for term in GLOSSARY if (svg := picture(term))}
    assert {"lens", "contribution", "influence", "effect", "value", "pattern", "residual stream", "neuron", "norm",
            "rank", "intersection", "ledger"} <= set(drawn)  # fmt: skip
    for term, svg in drawn.items():
        tree = ElementTree.fromstring(svg)
        assert tree.get("role") == "img" and tree.get("aria-label", " ")[-1] in ".?"
        tags = {part.tag for part in tree.iter()}
        assert tags <= {"svg", "path", "circle", "rect", "text"}, term
        assert "http" not in svg and "url(" not in svg
        for part in tree.iter("text"):  # no word leaves the picture: 6 units a letter
            at, half = float(part.get("x")), len(part.text) * 3
            left = at if part.get("text-anchor") == "start" else at - half
            assert left >= 0 and left + 2 * half <= 240, (term, part.text)
