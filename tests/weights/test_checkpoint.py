"""Weights of other libraries are found in all files that they come in, and files that are not what they say refused."""

import json
import os
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from tubelet.weights.checkpoint import open_checkpoint
from tubelet.weights.files import WeightsError

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "b.bias": torch.ones(4)}


def shards(folder, kind):
    files = {name: f"part-{i}.{kind}" for i, name in enumerate(STATE)}
    for name, file in files.items():
        one = {name: STATE[name]}
        save_file(one, folder / file) if kind == "safetensors" else torch.save(one, folder / file)
    stem = "model.safetensors" if kind == "safetensors" else "pytorch_model.bin"
    (folder / f"{stem}.index.json").write_text(json.dumps({"weight_map": files}))


WRITERS = {
    "one file": lambda folder: save_file(STATE, folder / "model.safetensors"),
    "shards": lambda folder: shards(folder, "safetensors"),
    "pickled": lambda folder: torch.save(STATE, folder / "pytorch_model.bin"),
    "pickled shards": lambda folder: shards(folder, "bin"),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_folder_has_its_tensors_in_any_of_four_ways(tmp_path, kind):
    (tmp_path / "config.json").write_text('{"model_type": "x"}')
    (tmp_path / "processor_config.json").write_text('{"image_processor": {"image_mean": [0.5]}}')
    WRITERS[kind](tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    assert (checkpoint.model_type, checkpoint.processor) == ("x", {"image_mean": [0.5]})
    assert set(checkpoint.tensors) == set(STATE)
    assert all(torch.equal(x, STATE[name]) for name, x in checkpoint.tensors.items())


@pytest.mark.parametrize("key", ["model", "state_dict", ""])
def test_a_pickled_file_gives_the_state_dict_that_a_training_kept_in_it(tmp_path, key):
    torch.save({key: STATE, "epoch": 3} if key else STATE, tmp_path / "weights.pth")
    assert set(open_checkpoint(tmp_path / "weights.pth").tensors) == set(STATE)


class Touch:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.open, (self.path, os.O_CREAT)


def repacked(path, compression):
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_a_pickled_file_runs_nothing_and_takes_no_memory_on_a_claim(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"a": Touch(tmp_path / "ran")}, path)
    with pytest.raises(WeightsError, match=r"weights\.pth: not readable as weights alone .* as safetensors"):
        open_checkpoint(path).tensors  # noqa: B018
    assert not (tmp_path / "ran").exists()
    torch.save({"a": torch.ones(1).expand(10**6, 10**6)}, path)
    with pytest.raises(WeightsError, match=r"a claims the shape \(1000000, 1000000\), which its bytes do not hold"):
        open_checkpoint(path).tensors  # noqa: B018
    torch.save(STATE, path)
    repacked(path, zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match="is compressed, which torch does not do"):
        open_checkpoint(path).tensors  # noqa: B018
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    with pytest.raises(WeightsError, match=r"no file that torch 1\.6 or newer saved"):
        open_checkpoint(path).tensors  # noqa: B018
    torch.save([1, 2], path)
    with pytest.raises(WeightsError, match="holds no state dict"):
        open_checkpoint(path).tensors  # noqa: B018


@pytest.mark.parametrize(
    ("places", "says"),
    [
        ({"a": "../model.safetensors"}, "a must lie in a .safetensors or .bin file of the same folder"),
        ({"a": 3}, "a must lie in a"),
        ({"x": "part.safetensors"}, "part.safetensors has no x; fetch or save both again"),
        ({"a": "other.safetensors"}, "other.safetensors: no such file"),
        ([], "has no weight_map"),
    ],
)
def test_an_index_names_files_beside_it_that_have_what_it_says(tmp_path, places, says):
    (tmp_path / "config.json").write_text("{}")
    save_file({"a": torch.ones(1)}, tmp_path / "part.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(WeightsError, match=says):
        open_checkpoint(tmp_path).tensors  # noqa: B018
