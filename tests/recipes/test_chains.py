"""Commands that start from another command's run: what docstrings and docs chain together fits together."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

from commands import experiment_of
from tubelet.configs import from_json, to_json
from tubelet.models import Model, ModelConfig
from tubelet.recipes import outlines
from tubelet.weights.loaded import LoadedModel
from tubelet.weights.transfer import initialize_from

ROOT = Path(__file__).parents[2]
_COMMAND = re.compile(r"tubelet train ((?:[^`\n\\]|\\\n)+)")
_IN_A_SENTENCE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_PLANS = ("folder", "demo", "vatt.folder")  # recipes that look at data that have to be there


def texts() -> dict[str, str]:
    """Each docstring of a recipe, and each page."""
    pages = (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")))
    docs = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in pages}
    return {name: outline.doc for name, outline in outlines().items()} | docs


def commands(text: str) -> list[list[str]]:
    """The words after ``tubelet train`` of every command, without comments, of recipes that need no data."""
    text = _IN_A_SENTENCE.sub(lambda code: f"`{' '.join(code[1].split())}`", text)
    found = [shlex.split(match[1].replace("\\\n", " "), comments=True) for match in _COMMAND.finditer(text)]
    return [words for words in found if words and words[0] in outlines() and words[0] not in _PLANS]


def value(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1] if flag in words else ""


def chains() -> Iterator[tuple[str, list[str], str, list[str] | None]]:
    """The text, a command, the run that it starts from, and the command that makes it: the text's, or the recipe's."""
    made_by_recipes = {
        f"runs/{name}": told[0] for name, outline in outlines().items() if (told := commands(outline.doc))
    }
    for where, text in texts().items():
        made = made_by_recipes | {value(words, "--out") or f"runs/{words[0]}": words for words in commands(text)}
        for words in commands(text):
            for flag in ("--init", "--tubes"):
                if (source := value(words, flag)).startswith("runs/"):
                    yield where, words, source, made.get(source)


CHAINS = list(chains())


@cache
def built(config: str) -> Model:
    with torch.device("meta"):
        return Model(from_json(ModelConfig, json.loads(config)).build(), {})


def test_the_papers_chains_are_found() -> None:
    recipes = {words[0] for _, words, _, _ in CHAINS}
    chained = (
        "tubevit.ssv2",
        "tubevit.charades",
        "tubevit.scaling",
        "vivit.ssv2_l16x2_fe",
        "mtv.ssv2_b",
        "vatt.kinetics",
    )
    assert recipes >= {*chained, "polyvit.linear_probe"}
    assert "README.md" in {where for where, *_ in CHAINS}


@pytest.fixture(autouse=True)
def vocabulary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of words that VATT's command names."""
    monkeypatch.chdir(tmp_path)
    Path("howto100m_en.txt").write_text("one\ntwo\nthree\n")


@pytest.mark.parametrize(
    ("words", "source", "maker"), [chain[1:] for chain in CHAINS], ids=[f"{w}: {s} to {c[0]}" for w, c, s, _ in CHAINS]
)
def test_a_run_that_a_command_starts_from_fits(words: list[str], source: str, maker: list[str] | None) -> None:
    assert maker is not None, f"no command makes {source}"
    theirs, ours = experiment_of(*maker).model, experiment_of(*words)
    (init,) = (init for init in ours.init if init.source == source)
    models = [built(json.dumps(to_json(config, ModelConfig))) for config in (theirs, ours.model)]
    report = initialize_from(LoadedModel(models[0], theirs), models[1], ours.model, init)
    assert report.loaded
