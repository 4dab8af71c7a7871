"""Captions as ids of words, and vocabularies."""

from __future__ import annotations

import pytest

from tubelet.media.words import build_vocabulary, load_vocabulary, word_ids, words_of
from tubelet.specs import TextSpec


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't add 1/2 cup, stir!", ["dont", "add", "12", "cup", "stir"]),  # as DMVR's tokenizer
        ("  a\tb\n c ", ["a", "b", "c"]),
        ("self-made snake_case $5", ["selfmade", "snakecase", "5"]),
        ("Don\u2019t \u2014 \u201cÉcoute\u201d \u266a", ["dont", "écoute"]),
        ("E\u0301coute", ["écoute"]),
        ("¿Qué? \u65b0\u9c9c\u3002", ["qué", "\u65b0\u9c9c"]),
        ("... \u266a", []),
    ],
)
def test_words(text, words):
    assert words_of(text) == words


def test_ids_are_cut_and_filled_up():
    ids = {"<pad>": 0, "<unk>": 1, "the": 2, "egg": 3}
    assert word_ids("The egg!", ids, 4).tolist() == [2, 3, 0, 0]
    assert word_ids("crack the egg", ids, 2).tolist() == [1, 2]
    assert word_ids("", ids, 2).tolist() == [0, 0]


def test_a_vocabulary_is_the_most_frequent_words_and_ties_are_in_order():
    texts = ["the egg, the pan", "The salt", "salt"]
    vocabulary = build_vocabulary(texts, 6)
    assert vocabulary == "<pad> <unk> the salt egg pan"
    assert build_vocabulary(reversed(texts), 6) == vocabulary
    assert build_vocabulary(texts, 5) == "<pad> <unk> the salt egg"
    assert build_vocabulary(texts, 1000) == vocabulary
    assert TextSpec(vocabulary=vocabulary).id_of["salt"] == 3
    with pytest.raises(ValueError, match="at least 3"):
        build_vocabulary(texts, 2)
    with pytest.raises(ValueError, match="no words"):
        build_vocabulary(["...", ""], 10)


def test_a_vocabulary_file_with_and_without_special_words(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("the\nof\n", encoding="utf-8-sig")
    assert load_vocabulary(path) == "<pad> <unk> the of"
    path.write_text("<pad>\r\n<bos>\r\n<eos>\r\n<unk>\r\nthe\r\n")
    assert load_vocabulary(path) == "<pad> <bos> <eos> <unk> the"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("the\nof\nthe\n", "line 3: 'the' already stands in line 1"),
        ("the 120\n", "line 1: 'the 120' must be one word"),
        ("the\n\nof\n", "line 2: '' must be one word"),
        ("<pad>\nthe\n", "must begin with <pad>, whose id is 0, and have <unk>"),
        ("the\n<pad>\n<unk>\n", "must begin with <pad>"),
        ("", "line 1: '' must be one word"),
    ],
)
def test_what_is_wrong_with_a_vocabulary_file_is_told(tmp_path, text, words):
    (tmp_path / "words.txt").write_text(text)
    with pytest.raises(ValueError, match=r"words\.txt") as caught:
        load_vocabulary(tmp_path / "words.txt")
    assert words in str(caught.value)


def test_a_vocabulary_file_of_another_encoding_is_told(tmp_path):
    (tmp_path / "words.txt").write_bytes("café\n".encode("latin-1"))
    with pytest.raises(ValueError, match="not UTF-8"):
        load_vocabulary(tmp_path / "words.txt")
