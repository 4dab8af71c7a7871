"""Classes told apart by their names, and retrieval with its protocol: what is answered, counted and said."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import torch

import tubelet
from colors import frames_of, write_colors
from tellers import TEXT, WORDS, evaluate_on_rank, save_teller
from tubelet.cli import main
from tubelet.configs import ConfigError
from tubelet.evaluation.run import evaluate_run
from tubelet.inference.sentences import PROMPT, sentence_of, unclear
from tubelet.media.write import write_video

# The fourth is mislabeled.
SEEN = [("red",), ("green",), ("blue",), ("red",), ("green",), ("blue",)]
LABELS = ["red", "DarkGreen", "light_blue", "light_blue", "DarkGreen", "light_blue"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_teller(tmp_path_factory.mktemp("teller") / "model")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colors(tmp_path_factory.mktemp("films"), SEEN, LABELS, broken=1)


def test_classes_are_told_apart_by_their_names(model: Path, films: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(model), "--data", str(films), "--zero-shot", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["tasks"]["zero_shot"]
    assert told["metrics"] == pytest.approx({"top1": 5 / 6, "mean_class_accuracy": (1 + 1 + 2 / 3) / 3})
    assert (told["coverage"], told["views"], told["inputs"]) == ({"scored": 6, "expected": 7}, "4x1", ["video"])
    assert told["warnings"][0] == (
        "2 of the 8 words of the classes' sentences are not in the model's vocabulary, and all count as <unk>: "
        "'dark', 'light'"
    )
    assert main(["eval", str(model), "--data", str(films), "--zero-shot", "--prompt", "{}"]) == 0
    assert "top1" in capsys.readouterr().out


def test_two_ranks_equal_one(model: Path, films: Path, tmp_path: Path) -> None:
    options = {"source": str(model), "data": str(films), "prompt": PROMPT, "workers": 0, "progress": False}
    alone = {name: result.as_json() for name, result in evaluate_run(**options).items()}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = torch.multiprocessing.get_context("spawn")
    outs = [tmp_path / f"{rank}.pt" for rank in range(2)]
    ranks = [context.Process(target=evaluate_on_rank, args=(rank, 2, port, options, outs[rank])) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
    assert [torch.load(out) for out in outs] == [alone, alone]


def test_files_are_asked_in_python_and_the_classifier_is_kept(model: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "film.mp4", frames_of("blue"), fps=10.0)
    loaded = tubelet.load(model)
    asked = loaded.zero_shot(WORDS)
    said = asked.predict(tmp_path / "film.mp4")
    assert (said.labels[0].label, said.task, said.views) == ("blue", "zero_shot", "2x1")
    logits = (
        torch.tensor([loaded.similarity(tmp_path / "film.mp4", text=f"a video of {word}") for word in WORDS]) / 0.07
    )
    assert said.labels[0].probability == pytest.approx(logits.softmax(0)[2].item(), abs=1e-4)
    asked.save(tmp_path / "kept")
    assert tubelet.load(tmp_path / "kept").predict(tmp_path / "film.mp4") == said
    with pytest.warns(UserWarning, match="2 of the 3 classes have the same sentence as another"):
        loaded.zero_shot(("red", "Red!", "blue"))


def test_what_cannot_be_asked_is_told(model: Path, films: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must hold \{\}, where the name of a class comes"):
        evaluate_run(model, data=str(films), prompt="a video", progress=False)
    with pytest.raises(ConfigError, match="classes of --data apart: give that"):
        evaluate_run(model, prompt=PROMPT, progress=False)
    tubelet.load(model).zero_shot(WORDS).save(tmp_path / "classes")
    with pytest.raises(ConfigError, match="does not compare video with text"):
        evaluate_run(tmp_path / "classes", data=str(films), prompt=PROMPT, progress=False)
    with pytest.raises(ConfigError, match="dual softmax is of retrieval, which task 'zero_shot' is not"):
        evaluate_run(tmp_path / "classes", data=str(films), dual_softmax=True, progress=False)
    assert main(["eval", str(model), "--data", str(films), "--zero-shot", "--ensemble", str(model)]) == 2
    assert main(["eval", str(model), "--data", str(films), "--prompt", "a {}"]) == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ApplyEyeMakeup", "Apply Eye Makeup"),
        ("brush_hair", "brush hair"),
        ("a-b/c.d", "a b c d"),
        ("TV", "TV"),
    ],
)
def test_names_of_classes_are_read_as_words(name: str, words: str) -> None:
    assert sentence_of(name, "a {}!") == f"a {words}!"


def test_sentences_that_are_cut_to_the_same_words_are_named() -> None:
    (said,) = unclear(TEXT, ["red", "blue"], "a video of a video of {}")
    assert said.startswith("2 of the 2 classes have the same sentence as another")


def test_retrieval_says_its_protocol_and_dual_softmax_has_names_of_its_own(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for color in WORDS:
        write_video(tmp_path / f"{color}.mp4", frames_of(color), fps=10.0)
    lines = [f"{color}.mp4,val,{color},{'a ' + color if color == 'red' else ''}" for color in WORDS]
    write_video(tmp_path / "mute.mp4", frames_of("red"), fps=10.0)  # without a caption: neither query nor candidate
    (tmp_path / "said.csv").write_text("\n".join(["path,split,text.1,text.2", "mute.mp4,val,,", *lines]))
    assert main(["eval", str(model), "--data", str(tmp_path / "said.csv"), "--views", "2x1"]) == 0
    protocol = (
        "clips: vectors of 2x1 views averaged, then their cosine; 4 captions (1 to 2 of each video) look for their own "
        "among 3 videos, and a video for its first caption among 3; of candidates that are equally near, the earlier "
        "one comes first"
    )
    assert f"{protocol}." in " ".join(capsys.readouterr().out.split())
    words = ["--data", str(tmp_path / "said.csv"), "--views", "2x1", "--dual-softmax", "--json"]
    assert main(["eval", str(model), *words]) == 0
    told = json.loads(capsys.readouterr().out)["tasks"]["clips"]
    assert told["metrics"]["dual_softmax_r1"] == told["metrics"]["dual_softmax_text_to_video_r1"] == 1.0
    assert all(name.startswith("dual_softmax_") for name in told["metrics"])
    assert told["protocol"].endswith("; dual softmax over all queries, so that none is answered alone")
