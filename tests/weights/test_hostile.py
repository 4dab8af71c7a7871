"""A model folder from a stranger is data: it runs no code, ends in one of our errors, takes no more than it holds."""

import importlib.util
import json
import resource
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import tubelet
from tubelet.configs import ConfigError
from tubelet.models import ViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import ImageSpec
from tubelet.weights.files import WeightsError
from tubelet.weights.folder import load_model
from zoo import ZOO, build

_FILE = Path(__file__).parents[2] / "benchmarks" / "hostile_folders.py"
_SPEC = importlib.util.spec_from_file_location("hostile_folders", _FILE)
assert _SPEC is not None
assert _SPEC.loader is not None
hostile = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(hostile)


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_hostile_folders_end_in_one_of_our_errors(tmp_path):
    wrong, before = [], peak()
    for name, source in hostile.hostile_folders(tmp_path, 330):
        try:
            load_model(source)
        except (WeightsError, ConfigError) as error:
            if not str(error).replace("\n", "").isprintable() or len(str(error)) > 20_000:
                wrong.append((name, "an error that is no line", str(error)[:100]))
        except Exception as error:
            wrong.append((name, type(error).__name__, str(error)))
        if (tmp_path / hostile.EXECUTED).exists():
            wrong.append((name, "ran code", ""))
            (tmp_path / hostile.EXECUTED).unlink()
    assert wrong == []
    assert peak() - before < 1024


@pytest.fixture
def folder(tmp_path):
    config = ViTConfig(
        backbone=TransformerConfig(width=16, depth=1, heads=2, mlp=32),
        patch=(8, 8),
        image=ImageSpec(size=(16, 16), short_side=16),
    )
    tubelet.create_model(config, num_classes=["a", "b"]).save(tmp_path / "model")
    return tmp_path / "model"


def change(folder, path, value):
    data = json.loads((folder / "tubelet.json").read_text())
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    (folder / "tubelet.json").write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("model.backbone.width", 20_000, "and the model that is described has many more"),
        ("model.backbone.depth", 500, "and the model that is described has many more"),
        ("model.backbone.depth", 10**9, r"model\.backbone: self\.depth=1000000000 must be from 0 to 1,000"),
        ("model.backbone.mlp", 64, r"mlp\.0\.weight has shape \(32, 16\), the model wants \(64, 16\)"),
        ("model.backbone.width", 0, r"model\.backbone: width=0 must be at least 1"),
        ("model.backbone.heads", -1, r"model\.backbone: heads=-1 must be at least 1"),
        ("model.patch", [0, 8], r"model: a tubelet .* must have at least one of each"),
        ("model.image.size", [10**6, 10**6], r"model\.image: one view is 3 x 1000000 x 1000000 numbers, more than"),
        ("tasks", None, "tasks: must be an object; got None"),
        ("tasks", {"a/../b": {"classes": ["x"]}}, r"'a/\.\./b' cannot name a task"),
        ("tasks.label.inputs", ["sound"], r"tasks\.label\.inputs: the model has image, and no input 'sound'"),
        ("tasks.label.views", "1000000x1", r"tasks\.label: views of 1,000,000 clips are too many"),
        ("tasks.label.classes", [], r"tasks\.label: classes must name at least one"),
    ],
)
def test_the_error_names_the_key(folder, path, value, says):
    change(folder, path.split("."), value)
    with pytest.raises(WeightsError, match=says):
        load_model(folder)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (torch.full((1, 16), float("nan")), "encoder.encoder.cls holds NaN or infinite numbers"),
        (torch.full((1, 16), 1e300, dtype=torch.float64), "encoder.encoder.cls holds NaN or infinite numbers"),
        (torch.ones(1, 16, dtype=torch.int64), "encoder.encoder.cls holds torch.int64, the model wants torch.float32"),
        (torch.ones(1, 16, dtype=torch.bool), "encoder.encoder.cls holds torch.bool, the model wants torch.float32"),
    ],
)
def test_weights_are_finite_floats(folder, values, says):
    state = {name: x.clone() for name, x in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    save_file(state | {"encoder.encoder.cls": values}, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=says):
        load_model(folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_the_models_own(folder, dtype):
    state = {name: x.to(dtype) for name, x in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    save_file(state, folder / "model.safetensors")
    loaded = load_model(folder).model.state_dict()
    assert {x.dtype for x in loaded.values()} == {torch.float32}
    assert all(torch.equal(loaded[name], x.float()) for name, x in state.items())


@pytest.mark.parametrize("name", ZOO)
def test_every_family_loads_as_it_was_with_all_that_is_not_stored(name, tmp_path):
    model = tubelet.create_model(ZOO[name])
    model.load_state_dict({**model.state_dict(), **build(ZOO[name]).encoder.state_dict(prefix="encoder.")})
    model.save(tmp_path / "model")
    again = tubelet.load(tmp_path / "model", device="cpu")
    kept = dict([*model.named_parameters(), *model.named_buffers()])
    found = dict([*again.named_parameters(), *again.named_buffers()])
    assert kept.keys() == found.keys()
    assert all(torch.equal(found[key], x) for key, x in kept.items())
    assert all(found[key].requires_grad == x.requires_grad for key, x in kept.items())


def test_other_threads_make_models_with_memory_meanwhile(folder):
    made, stop = [], threading.Event()

    def work():
        while not stop.is_set():
            made.append(next(torch.nn.Linear(2, 2).parameters()).is_meta)

    thread = threading.Thread(target=work)
    thread.start()
    for _ in range(5):
        load_model(folder)
    stop.set()
    thread.join()
    assert made
    assert not any(made)
