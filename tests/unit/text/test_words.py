"""Tokens as words: everything can be seen, nothing breaks a file, cuts keep to the room given."""

from __future__ import annotations

import sys
import unicodedata
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import pytest

from visit.text.visible import as_word, explained, fit, text_width, visible, word_kind, word_list


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (" Mary", "·Mary"),
        ("  two", "··two"),
        ("end ", "end·"),
        ("   ", "␣␣␣"),
        (" ", "␣"),
        (" " * 8, "␣×8"),
        ("\n" + " " * 7, "⏎␣×7"),
        (" \n", "␣⏎"),
        ("\t", "⇥"),
        ("in side", "in side"),
        ("\n", "⏎"),
        ("\n\n", "⏎⏎"),
        ("a\tb", "a⇥b"),
        ("\r", "\\x0d"),
        ("\x00", "\\x00"),
        ("\x1b[0m", "\\x1b[0m"),
        ("\x7f", "\\x7f"),
        ("\x85", "\\x85"),
        ("", "∅"),
        (b"\xe9", "\\xe9"),
        (b"caf\xc3\xa9", "café"),
        (b" \xf0\x9f", "·\\xf0\\x9f"),
        ("\udce9", "\\xe9"),
        ("\ud800", "\\ud800"),
        ("\u202eevil", "\\u202eevil"),
        ("\u2068", "\\u2068"),
        ("\u200f", "\\u200f"),
        ("\ufeffBOM", "\\ufeffBOM"),
        ("\xa0", "\\xa0"),
        ("\xad", "\\xad"),
        ("\u2028", "\\u2028"),
        ("\uffff", "\\uffff"),
        ("\u0301", "◌\u0301"),
        ("می‌خواهم", "می‌خواهم"),
        ("👩‍💻", "👩‍💻"),
        ("中文", "中文"),
        ("<script>", "<script>"),
    ],
)
def test_spelling(token, shown):
    assert visible(token) == shown


def test_every_character_can_stand_in_xml_and_cannot_reorder_its_line():
    for code in range(sys.maxunicode + 1):
        if 0x3400 <= code < 0xD000 or 0x20000 <= code < 0xE0000 or code >= 0xF0000:
            continue  # ideographs, Hangul and private use: all alike
        shown = visible("a" + chr(code))
        assert all(unicodedata.bidirectional(c) not in ("RLO", "LRO", "RLE", "LRE", "PDF", "RLI", "LRI") for c in shown)
        assert not any(unicodedata.category(c) in ("Cc", "Cs", "Cn", "Zl", "Zp") for c in shown), hex(code)
    text = "".join(
        visible(chr(code)) for code in [*range(0x300), *range(0x2000, 0x2100), *range(0xD800, 0xE000), 0xFFFE]
    )
    assert ElementTree.fromstring(f"<t>{escape(text)}</t>").text == text


LONG = ["DragonMagazine", "iiiiiiiiiiiiiiiiiiiiiiiiii", "WWWWWWWWWWWW", "中文字幕中文字幕", "e\u0301" * 40]


@pytest.mark.parametrize("word", LONG)
@pytest.mark.parametrize("room", [20, 48.5, 70])
def test_a_cut_word_keeps_to_its_room_and_to_its_accents(word, room):
    cut = fit(word, room, 12)
    assert text_width(cut, 12) <= room
    assert cut == word or cut.endswith("…")
    assert cut == word or not unicodedata.combining(word[len(cut) - 1])


def test_a_word_that_fits_is_left_alone():
    assert fit("·Mary", 60) == "·Mary"


def test_widths_are_those_of_arial():
    assert text_width("Mary", 1000) == pytest.approx(833 + 556 + 334 + 500)


@pytest.mark.parametrize(
    ("token", "kind", "shown"),
    [
        (" Tokyo", "word", "·Tokyo"),
        ("Tokyo", "word", "Tokyo"),  # at the start of a text: no space, and no piece
        ("ation", "piece", "…ation"),
        ("\u0301", "piece", "…◌\u0301"),
        (" don't", "word", "·don't"),
        (" U-Boot", "word", "·U-Boot"),
        ("東京", "word", "東京"),
        (" ,", "sign", "·,"),
        ("1989", "sign", "1989"),
        (" foo(", "sign", "·foo("),
        ("-", "sign", "-"),
        (" ", "space", "␣"),
        ("\n\n", "space", "⏎⏎"),
        ("\\xe6\\x9d", "byte", "\\xe6\\x9d"),
        (" \\xf0", "byte", "·\\xf0"),
        ("xe6", "piece", "…xe6"),
    ],
)
def test_a_reading_says_whether_it_is_a_word(token, kind, shown):
    assert (word_kind(token), as_word(token)) == (kind, shown)


def test_a_list_of_whole_words_leaves_out_the_others_and_keeps_the_order():
    tokens = [" the", "ation", " ", "\\xe6", " Paris", ",", " Rome"]
    assert word_list(tokens, 2) == ["·the", "…ation"]
    assert word_list(tokens, 2, whole=True) == ["·the", "·Paris"]


def test_only_signs_that_occur_are_explained():
    assert explained([" the", "Paris", "…"]) == []
    assert [sign for sign, _ in explained([" the", " ", "ation", "\\xe6"])] == ["␣", "…", "\\x…"]
    assert explained(["\r", " the"]) == [("\\x…", "a control character")]
    assert explained(["\r", "\\xe6"]) == [("\\x…", "a byte of a character or a control character")]


def test_no_control_character_is_a_sign_that_common_fonts_lack():
    for code in (*range(0x20), *range(0x7F, 0xA0)):
        for token in (chr(code), f"a{chr(code)}b", f" {chr(code)}"):
            drawn = set(visible(token)) - set("␣⏎⇥·")
            assert (drawn and drawn <= {chr(c) for c in range(0x21, 0x7F)}) or token.strip(" ab") in "\n\t", token
