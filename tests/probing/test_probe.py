"""Probes from a model and a data set to a number: what is trained, what is never looked at, and what is told."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from probe_toys import COLORS, IMAGE, POLYVIT, SIZE, VIT, VIVIT, save_tiny, write_media
from tubelet.configs import ConfigError
from tubelet.data.batch import Batch
from tubelet.data.manifest import ManifestError
from tubelet.data.views import Views
from tubelet.probing.data import ProbeData, read_examples
from tubelet.probing.encoder import find_trunk
from tubelet.probing.probe import comparison, probe, probes
from tubelet.probing.training import Plan, ProbeOptions, settings_for
from tubelet.training.module import TrainingModule
from tubelet.training.optimizers import choose_trainable
from tubelet.training.ranks import Ranks
from tubelet.training.run import initial_model
from tubelet.weights.folder import load_model
from tubelet.weights.transfer import initialize

QUICK = ProbeOptions(steps=30, batch_size=16, workers=0)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_media(tmp_path_factory.mktemp("pictures"), {"train": 12, "val": 4})


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return write_media(folder, {"train": 5, "val": 2}, video=True, broken=["train", "val"])


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    noisy = replace(VIT, backbone=replace(SIZE, dropout=0.5, attention_dropout=0.5, stochastic_depth=0.5))
    return save_tiny(tmp_path_factory.mktemp("models") / "vit", noisy)


@pytest.fixture(scope="module")
def by_training(vit, pictures, tmp_path_factory):
    out = tmp_path_factory.mktemp("probes") / "trained"
    return out, probe(vit, pictures, out, options=replace(QUICK, knn=True), progress=False)


def encoder_of(model):
    return model.encoder.state_dict()


def test_the_frozen_encoder_stays_bit_for_bit(by_training, vit):
    out, _ = by_training
    before, after = encoder_of(load_model(vit).model), encoder_of(load_model(out / "final").model)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_probe_learns_and_says_how(by_training):
    out, found = by_training
    linear, neighbors = found.rows
    assert (linear.dataset, linear.modality, linear.method) == ("toys", "image", "linear, trained on files")
    assert (linear.value, linear.views, linear.scored, linear.expected, linear.train) == (1.0, "1x1", 12, 12, 36)
    assert (neighbors.method, neighbors.value, neighbors.learning_rate) == ("k-NN (k = 20)", 1.0, None)
    assert found.settings.startswith("30 updates (2 of warm-up")
    assert found.validation.keys() == {"0.03", "0.1", "0.3"}
    assert found.validation[f"{linear.learning_rate:g}"] == max(found.validation.values())
    assert any("chosen by 7 of the 36 training examples, drawn by seed 0" in note for note in found.notes)
    assert json.loads((out / "probe.json").read_text()) == json.loads(json.dumps(found.as_json()))


def test_the_choice_of_the_rate_never_sees_the_test_split(by_training, pictures, vit, tmp_path):
    out, found = by_training
    paths = [json.loads(line)["path"] for line in (out / "choosing.jsonl").read_text().splitlines()]
    assert len(paths) == len(set(paths)) == 36
    assert not any("val_" in path for path in paths)
    other = pictures.with_name("mislabeled.csv")
    turned = {color: COLORS[place - 1] for place, color in enumerate(COLORS)}
    lines = [line.split(",") for line in pictures.read_text().split()]
    wrong = [[p, turned[c] if split == "val" else c, split] for p, c, split in lines]
    other.write_text("\n".join(map(",".join, wrong)) + "\n")
    data = ProbeData(path=str(other), name="toys")
    mistaken = probe(vit, data, tmp_path / "out", options=replace(QUICK, fast=True), progress=False)
    assert mistaken.validation == found.validation
    assert mistaken.rows[0].learning_rate == found.rows[0].learning_rate
    assert mistaken.rows[0].value == 0.0


def test_on_images_cached_features_give_the_head_of_the_training(by_training, vit, pictures, tmp_path):
    out, found = by_training
    fast = probe(vit, pictures, tmp_path / "fast", options=replace(QUICK, fast=True), progress=False)
    trained, cached = (
        load_model(folder / "final").model.heads["toys"].state_dict() for folder in (out, tmp_path / "fast")
    )
    for name, tensor in trained.items():
        torch.testing.assert_close(cached[name], tensor, rtol=1e-3, atol=1e-4)
    assert [row.value for row in fast.rows] == [1.0, 1.0]
    assert fast.validation == found.validation
    assert fast.rows[0].method == "linear, cached features"
    assert not any("departure" in note for note in fast.notes)


def test_a_finished_probe_is_not_trained_again(by_training, vit, pictures, monkeypatch):
    out, found = by_training
    monkeypatch.setattr("tubelet.training.loop.Loop.run", lambda *_: pytest.fail("trains"))
    assert probe(vit, pictures, out, options=replace(QUICK, knn=True), progress=False) == found
    with pytest.raises(ConfigError, match=r"tasks\.toys\.batch_size: 16 -> 8"):
        probe(vit, pictures, out, options=replace(QUICK, batch_size=8), progress=False)


def test_no_gradient_passes_through_the_trunk_and_nothing_drops(vit, pictures):
    examples = read_examples(ProbeData(path=str(pictures)))
    trunk = find_trunk(vit, "image", vit)
    plan = Plan(trunk=trunk, examples=examples, settings=settings_for("image", 36, QUICK), options=QUICK)
    experiment = plan.experiment(0.1)
    model = initial_model(experiment)
    initialize(model, experiment.model, experiment.init)
    choose_trainable(model, experiment.trainable)
    learner = TrainingModule(model, experiment.tasks, Ranks(torch.device("cpu"))).train()
    images = torch.randint(0, 256, (4, 3, *IMAGE.size), dtype=torch.uint8)
    batch = Batch("toys", {"image": images}, torch.tensor([0, 1, 2, 0]), list("abcd"))
    kept: list[torch.Tensor] = []
    with saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        loss, _ = learner(batch)
        loss.backward()
    assert max(x.numel() for x in kept) <= max(4 * 32, 3 * 32), "features, logits and the head, no tokens"
    assert [name for name, p in model.named_parameters() if p.grad is not None] == [
        "heads.toys.projection.weight",
        "heads.toys.projection.bias",
    ]
    with torch.no_grad():
        in_training = model.encoder(model.preprocess({"image": images})).pooled
        at_test = trunk.encoder.eval()(model.preprocess({"image": images})).pooled
    torch.testing.assert_close(in_training, at_test)


def test_unreadable_files_are_counted_and_not_replaced(videos, tmp_path):
    source = save_tiny(tmp_path / "vivit", VIVIT)
    options = replace(QUICK, fast=True, views=Views(clips=2))
    found = probe(source, videos, tmp_path / "out", options=options, progress=False)
    assert [(row.scored, row.expected, row.train, row.views) for row in found.rows] == [(6, 7, 15, "2x1")] * 2
    assert [row.value for row in found.rows] == [1.0, 1.0]
    assert [(file["split"], file["path"].rpartition("/")[2]) for file in found.unreadable] == [
        ("train", "train_broken.mp4"),
        ("val", "val_broken.mp4"),
    ]
    assert any("departure from the paper, which augments video" in note for note in found.notes)
    assert found.validation == {}


def test_a_polyvit_is_probed_by_the_lane_of_the_data(videos, tmp_path):
    source = save_tiny(tmp_path / "polyvit", POLYVIT)
    options = replace(QUICK, steps=20, augment=False, views=Views(clips=2), rates=(0.5,))
    found = probe(source, videos, tmp_path / "out", options=options, progress=False)
    assert (found.rows[0].scored, found.rows[0].expected, found.rows[0].train) == (6, 7, 15)
    assert found.rows[0].learning_rate == 0.5
    assert [file["split"] for file in found.unreadable] == ["train", "val"]
    loaded = load_model(tmp_path / "out" / "final")
    assert loaded.tasks["toys"].inputs == ("video",)
    assert set(loaded.config.inputs) == {"image", "video", "audio"}
    before, after = encoder_of(load_model(source).model), encoder_of(loaded.model)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_model_that_never_had_the_modality_is_converted_and_it_is_told(vit, videos, tmp_path):
    options = replace(QUICK, fast=True, views=Views(), frames=8)
    found = probe(vit, videos, tmp_path / "out", options=options, progress=False)
    (note,) = [note for note in found.notes if note.startswith("cross-modal")]
    assert "never had video; converted from its image" in note
    assert "8 x 16 x 16" in note
    assert found.rows[0].value == 1.0
    trained = probe(vit, videos, tmp_path / "files", options=replace(options, fast=False, steps=4), progress=False)
    assert trained.rows[0].modality == "video"
    assert trained.notes == tuple(note for note in found.notes if "departure" not in note)
    assert load_model(tmp_path / "files" / "final").config.inputs["video"].frames == 8


def test_several_models_on_several_data_sets_make_a_table(vit, pictures, videos, tmp_path):
    models = {"ViT": vit, "PolyViT": save_tiny(tmp_path / "polyvit", POLYVIT)}
    options = replace(QUICK, steps=5, fast=True, views=Views())
    data = {"moving": ProbeData(path=str(videos)), "still": pictures}
    found = probes(models, data, tmp_path / "out", options=options, progress=False)
    table = comparison(found)
    assert [column.header for column in table.columns] == ["model", "method", "still\n(image)", "moving\n(video)"]
    cells = [list(column.cells) for column in table.columns]
    assert cells[0] == ["ViT", "ViT", "PolyViT", "PolyViT"]
    assert cells[2][0] == f"{100 * found['ViT']['still'].rows[0].value:.1f}"
    assert (tmp_path / "out" / "PolyViT" / "moving" / "probe.json").is_file()


def test_errors_say_what_and_the_way_out(vit, pictures, videos, tmp_path, monkeypatch):
    alone = write_media(tmp_path / "alone", {"train": 3})
    with pytest.raises(ManifestError, match="no split 'test' or 'val'"):
        probe(vit, alone, tmp_path / "out", progress=False)
    with pytest.raises(ConfigError, match="its own input is used, which fixes frames and size"):
        probe(vit, pictures, tmp_path / "out", options=replace(QUICK, size=32), progress=False)
    with pytest.raises(ValueError, match=r"Views\(crops="):
        probe(vit, pictures, tmp_path / "a", options=replace(QUICK, fast=True, views=Views(clips=2)), progress=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="one process"):
        probe(vit, pictures, tmp_path / "out", progress=False)
