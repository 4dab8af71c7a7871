"""Model cards and the hub: what huggingface_hub reads of a card, and what is uploaded."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
import torch

from tubelet.cards import ClassCard, NumberCard
from tubelet.inference.predictor import Predictor
from tubelet.models import ViViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import VideoSpec
from tubelet.weights.card import Publication, model_card
from tubelet.weights.files import WeightsError
from tubelet.weights.loaded import LoadedModel, build_model

CONFIG = ViViTConfig(
    backbone=TransformerConfig(width=16, depth=1, heads=2, mlp=32),
    tubelet=(2, 8, 8),
    video=VideoSpec(frames=4, size=(16, 16), short_side=16),
)
RESULT = {"metrics": {"top1": 0.987, "top5": 1.0}, "views": "4x3", "coverage": {"scored": 398, "expected": 400}}
TASKS = {"motion": ClassCard(classes=("left", "right")).measured(RESULT)}
PROVENANCE = {"experiment": {"tasks": {"motion": {"source": {"path": "data/digits/manifest.csv", "test": "val"}}}}}


@pytest.fixture
def model():
    return Predictor(LoadedModel(build_model(CONFIG, TASKS), CONFIG, TASKS, PROVENANCE), torch.device("cpu"))


@pytest.fixture
def hub(monkeypatch):
    """What would have been uploaded: the repository's options, and the files by name."""
    seen = {}

    def upload(_, repo_id, folder_path, commit_message):
        seen["files"] = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}
        return f"https://hub/{repo_id}/commit/1"

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", lambda _, name, **options: seen.update({name: options}))
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload)
    return seen


def card_in(files):
    return huggingface_hub.ModelCard(files["README.md"].decode())


def test_a_model_is_pushed_with_a_card_that_the_hub_reads(model, hub):
    address = model.push_to_hub("me/motion", private=True, license="apache-2.0", datasets=["me/digits"])
    assert address == "https://hub/me/motion/commit/1"
    assert hub["me/motion"] == {"private": True, "exist_ok": True}
    assert set(hub["files"]) == {"model.safetensors", "tubelet.json", "README.md"}
    card = card_in(hub["files"])
    assert (card.data.library_name, card.data.pipeline_tag) == ("tubelet", "video-classification")
    assert (card.data.license, card.data.datasets, card.data.model_name) == ("apache-2.0", ["me/digits"], "me/motion")
    assert 'tubelet.load("hf:me/motion")' in card.text


def test_metrics_carry_their_views_and_their_coverage(model, hub):
    model.push_to_hub("me/motion")
    first, second = card_in(hub["files"]).data.eval_results
    assert (first.metric_type, first.metric_value, second.metric_type) == ("accuracy", 0.987, "top5")
    assert first.metric_name == "top1 (4x3 views, 398/400 scored)"
    assert first.metric_args == {"views": "4x3", "scored": 398, "expected": 400}
    assert (first.task_type, first.task_name) == ("video-classification", "motion")
    assert (first.dataset_name, first.dataset_split) == ("digits", "val")
    assert b"- top1: 98.7% (4x3 views, 398/400 scored)" in hub["files"]["README.md"]


def test_a_model_is_pushed_in_the_layout_of_transformers(model, hub):
    model.push_to_hub("hf:me/motion", layout="transformers")
    assert set(hub["files"]) == {"model.safetensors", "config.json", "preprocessor_config.json", "README.md"}
    card = card_in(hub["files"])
    assert (card.data.library_name, card.data.model_name) == ("transformers", "me/motion")
    assert card.data.tags == ["transformers", "tubelet", "video"]
    assert 'VivitForVideoClassification.from_pretrained("me/motion")' in card.text


@pytest.mark.parametrize("name", ["a: b", "- [x]", "{y}", "ü # z"])
def test_names_that_yaml_would_take_for_something_else_stay_names(name):
    tasks = {name: NumberCard(numbers=("age",), mean=(0.0,), std=(1.0,), metrics={"r2": 0.5})}
    text = model_card(LoadedModel(build_model(CONFIG, tasks), CONFIG, tasks), Publication(name=name))
    (result,) = huggingface_hub.ModelCard(text).data.eval_results
    assert (result.task_name, result.dataset_name, result.metric_value) == (name, name, 0.5)


def test_a_hub_that_refuses_says_how_to_log_in(model, monkeypatch):
    def refuse(*_, **__):
        raise OSError("401 Client Error")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    with pytest.raises(WeightsError, match=r"hf:me/motion: cannot be uploaded to: 401 .*`hf auth login`"):
        model.push_to_hub("me/motion")
