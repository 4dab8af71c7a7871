"""A model on disk: what goes in comes out, and what is broken says so."""

import json

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from tubelet.cards import ClassCard
from tubelet.configs import ConfigError
from tubelet.models import Modality, PolyViTConfig, ViViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import ImageSpec, SpectrogramSpec, VideoSpec
from tubelet.weights import folder as model_folder
from tubelet.weights.files import WeightsError, share
from tubelet.weights.folder import load_model, save_model
from tubelet.weights.loaded import build_model

CONFIG = ViViTConfig(
    backbone=TransformerConfig(width=16, depth=1, heads=2, mlp=32, stochastic_depth=0.1),
    tubelet=(2, 8, 8),
    video=VideoSpec(frames=4, size=(16, 24), short_side=20, mean=(0.4, 0.5, 0.6), fps=12.5),
)
TASKS = {
    "motion": ClassCard(classes=("left", "right", "größer"), metrics={"top1": 0.987}, views="2x1"),
    "action": ClassCard(classes={"verb": ("open", "close"), "noun": ("door", "tap", "lid")}, multilabel=True),
}
PROVENANCE = {"recipe": "demo", "step": 300, "data": {"motion": "abc123"}}


@pytest.fixture
def saved(tmp_path):
    model = build_model(CONFIG, TASKS)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    save_model(tmp_path / "model", model, CONFIG, TASKS, PROVENANCE)
    return tmp_path / "model", model


@torch.no_grad()
def test_a_model_comes_back_as_it_was(saved):
    folder, model = saved
    loaded = load_model(folder)
    assert (loaded.config, dict(loaded.tasks), dict(loaded.provenance)) == (CONFIG, TASKS, PROVENANCE)
    video = {"video": torch.randn(2, 4, 3, 16, 24)}
    for name in TASKS:
        ours, theirs = loaded.model.eval()(video, name), model.eval()(video, name)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@torch.no_grad()
def test_a_model_of_several_modalities_comes_back_and_its_card_names_them(tmp_path):
    config = PolyViTConfig(
        backbone=CONFIG.backbone,
        modalities={
            "image": Modality(spec=ImageSpec(size=(16, 16), short_side=16), patch=(1, 8, 8)),
            "audio": Modality(spec=SpectrogramSpec(frames=24, bins=16), patch=(1, 8, 8)),
        },
        adaptor_depth=1,
    )
    tasks = {
        "digit": ClassCard(classes=("0", "1"), inputs=("image",)),
        "spoken": ClassCard(classes=("one", "two", "three"), inputs=("audio",), hidden=(5,)),
    }
    model = build_model(config, tasks).eval()
    save_model(tmp_path / "model", model, config, tasks)
    loaded = load_model(tmp_path / "model")
    assert (loaded.config, dict(loaded.tasks)) == (config, tasks)
    sound = {"audio": torch.randn(2, 24, 16)}
    torch.testing.assert_close(loaded.model.eval()(sound, "spoken"), model(sound, "spoken"), rtol=0, atol=0)
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    for line in (
        "pipeline_tag: image-classification",
        "- audio",
        "- of `audio`",
        'print(model.predict("picture.jpg"))',
        'print(model.predict("sound.wav"))',
    ):
        assert line in card.splitlines(), line


def test_a_run_folder_gives_its_model(saved):
    folder, _ = saved
    assert load_model(folder.parent).config == CONFIG


def test_the_description_is_readable_by_others(saved):
    folder, _ = saved
    told = json.loads((folder / "tubelet.json").read_text(encoding="utf-8"))
    assert told["inputs"]["video"]["frames"] == 4
    assert told["inputs"]["video"]["range"] == [pytest.approx(-1.2), pytest.approx(1.2)]
    assert told["tasks"]["motion"]["classes"] == ["left", "right", "größer"]
    assert told["model"]["kind"] == "vivit"
    assert told["library"].startswith("tubelet ")


def test_the_card_says_what_a_finder_asks(saved):
    folder, model = saved
    card = (folder / "README.md").read_text(encoding="utf-8")
    front = card.split("---")[1]
    assert "library_name: tubelet" in front
    assert "pipeline_tag: video-classification" in front
    for fact in (
        "4 frames, every 2 of 12.5 frames per second",
        "16x24 pixels",
        "3 classes",
        "top1: 98.7% (2x1 views)",
    ):
        assert fact in card
    assert f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} million" in card


def test_saving_replaces_a_model_and_nothing_else(saved, tmp_path):
    folder, model = saved
    (folder / "left.txt").write_text("from the old one")
    save_model(folder, model, CONFIG, TASKS, {"step": 301})
    assert load_model(folder).provenance == {"step": 301}
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "model.safetensors", "tubelet.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"")
    with pytest.raises(WeightsError, match="is not empty and is no model folder"):
        save_model(tmp_path / "photos", model, CONFIG, TASKS)
    assert (tmp_path / "photos" / "cat.jpg").exists()


def test_a_save_that_fails_leaves_the_old_model(saved, monkeypatch):
    folder, model = saved

    def full(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(model_folder, "save_file", full)
    with pytest.raises(OSError, match="no space left"):
        save_model(folder, model, CONFIG, TASKS, {"step": 301})
    assert load_model(folder).provenance == PROVENANCE


def test_heads_must_be_described(saved, tmp_path):
    _, model = saved
    with pytest.raises(WeightsError, match=r"heads for \['action', 'motion'\], the tasks described are \['motion'\]"):
        save_model(tmp_path / "other", model, CONFIG, {"motion": TASKS["motion"]})


def change(folder, **values):
    path = folder / "tubelet.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_errors_of_the_description(saved):
    folder, _ = saved
    told = json.loads((folder / "tubelet.json").read_text())
    change(folder, format=7, library="tubelet 3.0")
    with pytest.raises(WeightsError, match=r"format 7, written by tubelet 3\.0"):
        load_model(folder)
    change(folder, format=1, model=told["model"] | {"tubelets": [2, 8, 8]})
    with pytest.raises(WeightsError, match=r"tubelet\.json: .*no field 'tubelets'; did you mean 'tubelet'"):
        load_model(folder)
    (folder / "tubelet.json").write_text('{"format": 1, ')
    with pytest.raises(WeightsError, match=r"tubelet\.json: not readable as JSON"):
        load_model(folder)


def test_errors_of_the_weights(saved):
    folder, _ = saved
    path = folder / "model.safetensors"
    state = load_file(path)
    norm = "encoder.encoder.transformer.norm.weight"
    save_file({name: x for name, x in state.items() if name != norm}, path)
    with pytest.raises(WeightsError, match=f"{norm} is missing"):
        load_model(folder)
    save_file(state | {norm: torch.ones(17)}, path)
    with pytest.raises(WeightsError, match=rf"{norm} has shape \(17,\), the model wants \(16,\)"):
        load_model(folder)
    save_file(state | {"extra": torch.ones(1)}, path)
    with pytest.raises(WeightsError, match="extra has no place in the model"):
        load_model(folder)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        load_model(folder)
    path.unlink()
    with pytest.raises(WeightsError, match=r"model\.safetensors: no such file"):
        load_model(folder)


def test_sources_that_are_no_models(tmp_path):
    with pytest.raises(WeightsError, match="no such file or folder; a model on the Hugging Face hub is written hf:"):
        load_model("org/name")
    with pytest.raises(WeightsError, match="no model here"):
        load_model(tmp_path)
    (tmp_path / "weights.ckpt").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"not '\.ckpt'"):
        load_model(tmp_path / "weights.ckpt")


@pytest.mark.parametrize(
    ("steps", "schedule", "says"),
    [
        ((200, 1400), "Weighted", "update 1,400 of 4,001, from its last checkpoint"),
        ((200,), "Accumulated", "update 200 of 2,000, from its last checkpoint"),
        ((), "Weighted", "it has no checkpoint yet"),
    ],
)
def test_a_run_that_has_not_finished_says_how_far_it_is(tmp_path, steps, schedule, says):
    data = {"a": {"updates": 1000}, "b": {"updates": 3001}}
    (tmp_path / "config.json").write_text(json.dumps({"experiment": {"schedule": {"kind": schedule}}, "data": data}))
    for step in steps:
        (tmp_path / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
    with pytest.raises(ConfigError) as raised:
        load_model(tmp_path)
    assert str(raised.value) == (
        f"{tmp_path}: this run has not finished ({says}): run the same `tubelet train` command again to finish it"
    )


def test_fetching_from_the_hub(saved, monkeypatch):
    folder, _ = saved
    asked = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: asked.append(name) or str(folder))
    assert load_model("hf:me/motion").config == CONFIG
    assert asked == ["me/motion"]

    def offline(*_, **__):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network and nothing in the cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(WeightsError, match=r"hf:me/motion: cannot be fetched: no network.*Check the name"):
        load_model("hf:me/motion")


def test_sharing_on_the_hub(saved, monkeypatch, tmp_path):
    folder, _ = saved
    calls = []
    api = huggingface_hub.HfApi
    monkeypatch.setattr(api, "create_repo", lambda _, name, **options: calls.append((name, options)))
    monkeypatch.setattr(api, "upload_folder", lambda _, **options: calls.append(options) or "https://hub/commit/1")
    assert share(folder, "hf:me/motion", private=True) == "https://hub/commit/1"
    assert calls[0] == ("me/motion", {"private": True, "exist_ok": True})
    assert (calls[1]["repo_id"], calls[1]["folder_path"]) == ("me/motion", folder)
    with pytest.raises(WeightsError, match="nothing was uploaded"):
        share(tmp_path, "me/motion")


def test_a_folder_of_version_0_1_loads(saved):
    folder, model = saved
    told = json.loads((folder / "tubelet.json").read_text(encoding="utf-8"))
    old = {**told["model"], "kind": "ViViTConfig", "attends": told["model"].pop("attention_type")}
    del old["attention_type"]
    tasks = {name: {k: v for k, v in card.items() if k != "kind"} for name, card in told["tasks"].items()}
    change(folder, format=1, model=old, tasks=tasks)
    loaded = load_model(folder)
    assert (loaded.config, dict(loaded.tasks)) == (CONFIG, TASKS)
    kept = model.state_dict()
    assert all(torch.equal(x, kept[name]) for name, x in loaded.model.state_dict().items())
