"""Word vectors of text files in the table of a model of captions."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tubelet.models import VattConfig
from tubelet.models.vatt import VattEncoder, Words
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import TextSpec
from tubelet.weights.files import WeightsError
from tubelet.weights.formats.word_vectors import load_word_vectors

SPEC = TextSpec(captions=2, words=4, ids=6, vocabulary="<pad> <unk> cat dog tree")
FILE = "dog 1 2 3\nthe 0 0 0\ncat 0.5 -1e-2 4\ndog 9 9 9\n. . . 7 7 7\n"


def encoder(vocabulary: str = SPEC.vocabulary) -> VattEncoder:
    backbone = TransformerConfig(width=8, depth=1, heads=2, mlp=8)
    words = Words(spec=replace(SPEC, vocabulary=vocabulary), backbone=backbone, vectors=3)
    return VattConfig(modalities={"text": words}).build()


@pytest.mark.parametrize("header", ["", "5 3\n"], ids=["GloVe", "word2vec"])
@pytest.mark.parametrize("compressed", [False, True])
def test_known_words_get_their_vectors_and_the_others_keep_theirs(
    tmp_path: Path, header: str, compressed: bool
) -> None:
    path = tmp_path / ("vectors.txt.gz" if compressed else "vectors.txt")
    content = (header + FILE).encode()
    path.write_bytes(gzip.compress(content) if compressed else content)
    model = encoder()
    table = model.get_parameter("modalities.text.words.table")
    before = table.clone()
    report = load_word_vectors(model, path)
    assert table[2:4].tolist() == [[0.5, pytest.approx(-0.01), 4.0], [1.0, 2.0, 3.0]]
    assert torch.equal(table[[0, 1, 4, 5]], before[[0, 1, 4, 5]])
    assert not table.requires_grad
    assert (report.found, report.missing) == (2, ("<pad>", "<unk>", "tree"))
    assert "has 2 of the vocabulary's 5 words; not <pad>, <unk>, tree" in str(report)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat 1 2\n", "line 1: 2 numbers, but the model's vectors have 3"),
        ("dog 1 2 3\ncat 1 2 3 4\n", "line 2: 4 numbers, but the model's vectors have 3"),
        ("cat 1 2 x\n", "line 1: what follows 'cat' is not all numbers"),
        ("cow 1 2 3\n", "none of the vocabulary's 5 words"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text(text)
    with pytest.raises(WeightsError, match=message):
        load_word_vectors(encoder(), path)


def test_a_vocabulary_and_a_file_are_needed(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="has a vocabulary"):
        load_word_vectors(encoder(""), tmp_path / "vectors.txt")
    with pytest.raises(WeightsError, match="no such file"):
        load_word_vectors(encoder(), tmp_path / "vectors.txt")
