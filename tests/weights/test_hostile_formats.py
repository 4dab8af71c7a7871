"""What lies in the place of a checkpoint's files, of every format: one of our errors, in a line; nothing executes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import resource
import struct
import time
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file

import released
import tubelet
from bundle_files import table, write_bundle
from flax_files import nested, packed
from tubelet.models import ViTConfig, ViViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import ImageSpec, VideoSpec
from tubelet.weights.checkpoint import READERS, Checkpoint, open_checkpoint
from tubelet.weights.files import WeightsError
from tubelet.weights.formats import FORMATS, read_checkpoint

transformers = pytest.importorskip("transformers")

# By the module that reads them: the config.json of every kind of folder; none where a format's files are single.
CONFIGS = {
    "vit": [{"model_type": kind} for kind in ("vit", "deit", "vit_mae", "vit_msn")],
    "dino": [{"model_type": kind} for kind in ("dinov2", "dinov2_with_registers", "dinov3_vit")],
    "clip": [{"model_type": kind} for kind in ("clip", "clip_vision_model", "siglip", "siglip_vision_model")],
    "vivit": [{"model_type": "vivit"}],
    "videomae": [{"model_type": "videomae"}],
    "timesformer": [{"model_type": "timesformer"}],
    "vjepa2": [{"model_type": "vjepa2"}],
    "ast": [{"model_type": "audio-spectrogram-transformer"}],
    "timm": [{"architecture": "vit_tiny_patch16_224"}],
    "onnx": [],
    "scenic_checkpoint": [],
    "vatt": [],
}
FOLDER_PLACES = (
    "model.safetensors",
    "pytorch_model.bin",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
    "a shard",
    "a pickled shard",
)
FILE_PLACES = (*(f"weights{suffix}" for suffix in READERS), "checkpoint_7", "ckpt.index", "ckpt.data-00000-of-00001")
PLACES = [
    *((config, place) for configs in CONFIGS.values() for config in configs for place in FOLDER_PLACES),
    *((None, place) for place in FILE_PLACES),
]
_HUGE = 10**12


def test_every_format_is_among_them():
    assert set(CONFIGS) == {one.__name__.rpartition(".")[2] for one in FORMATS}


class Touch:
    """Pickled, it makes a file where it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.open, (self.path, os.O_CREAT)


def zipped(**members):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_pkl", ".pkl"), content)
    return made.getvalue()


def npz(**arrays):
    made = io.BytesIO()
    np.savez(made, allow_pickle=True, **arrays)
    return made.getvalue()


def safetensors(header):
    told = json.dumps(header).encode()
    return struct.pack("<Q", len(told)) + told + bytes(8)


def saved(write, *args):
    made = io.BytesIO()
    write(*args, made)
    return made.getvalue()


def hostile_contents(marker):
    """By what they are: contents that no reader may take for weights."""
    state, arrays = {"cls_token": torch.ones(1, 1, 64)}, {"cls": np.ones((1, 1, 64), np.float32)}
    whole = {
        "a safetensors file": save(state),
        "a file of torch": saved(torch.save, state),
        "an .npz": npz(**arrays),
        "a checkpoint of flax": packed(nested(arrays)),
    }
    code = pickle.dumps(Touch(marker), protocol=2)
    claim = {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * _HUGE]}
    array = {"": np.array([Touch(marker)], dtype=object)}
    return {
        "a PNG": b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4,
        "text": b"These are the weights of the model.\n" * 20,
        "a web page": b"<!DOCTYPE html><html><body>404</body></html>",
        "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 343\n",
        "empty": b"",
        "zeros": bytes(4096),
        "a pickle that runs": code,
        "a pickle that runs, in torch's archive": zipped(archive__data_pkl=code, archive__version="3"),
        "an .npz whose array runs": npz(cls=array[""]),
        "an .npy whose array runs": saved(lambda made: np.save(made, array[""], allow_pickle=True)),
        "a header of 10^12 bytes": struct.pack("<Q", _HUGE) + b"{",
        "a tensor of 10^12 numbers": safetensors({"cls_token": claim}),
        "no tensors": save({}),
        "a map of 2^32 names": b"\xdf\xff\xff\xff\xff\xa1a" * 3,
        "lists in lists": b"\xdd\xff\xff\xff\xff" * 10_000,
        "an array of flax of 10^12 numbers": packed({"cls": None})[:-1] + b"\xc7\x0f\x01\x93\x91\xcf" + bytes(12),
        "an empty table": table({}),
        "JSON": json.dumps({"weight_map": {"a": "../../../etc/passwd"}}).encode(),
        "JSON in JSON": b"[" * 50_000,
        **{f"{name}, cut": content[: len(content) * 2 // 3] for name, content in whole.items()},
    }


def laid_out(folder, config, place, content):
    """Write ``content`` into its place of a checkpoint in ``folder``; what to load."""
    folder.mkdir(exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    if place == "ckpt.index":
        (folder / "ckpt.data-00000-of-00001").write_bytes(bytes(8))
    if place.startswith("ckpt.data"):
        write_bundle(folder / "ckpt", {"_base/tx/a": np.ones(5000, np.float32)})
    if place.endswith("shard"):
        shard = "model-1-of-1" + (".bin" if "pickled" in place else ".safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"cls_token": shard}}))
        place = shard
    (folder / place).write_bytes(content)
    return folder if config is not None else folder / ("ckpt" if place.startswith("ckpt.") else place)


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize(("config", "place"), PLACES)
def test_what_is_no_checkpoint_is_refused_in_a_line(tmp_path, config, place):
    wrong, before, marker = [], peak(), tmp_path / "executed"
    for name, content in hostile_contents(marker).items():
        source, start = laid_out(tmp_path / "model", config, place, content), time.process_time()
        try:
            tubelet.load(source, device="cpu")
            wrong.append((name, "loaded"))
        except WeightsError as error:
            said = str(error)
            if "\n" in said or not said.isprintable() or str(tmp_path) not in said or not says_the_way_out(said):
                wrong.append((name, said))
        except Exception as error:
            wrong.append((name, f"{type(error).__name__}: {error}"))
        if time.process_time() - start > 1 or marker.exists():
            wrong.append((name, "took long or ran"))
    assert wrong == []
    assert peak() - before < 100


def says_the_way_out(said):
    ways = "fetch or save", "fetch it again", "as safetensors", "what loads:", "are read from", "must lie in"
    return any(way in said for way in ways)


@pytest.mark.parametrize("place", ["weights.safetensors", "weights.pt", "weights.npz", "model.safetensors.index.json"])
def test_what_a_foreign_file_is_is_said(tmp_path, place):
    contents = hostile_contents(tmp_path / "executed")
    config = {"model_type": "vit"} if place.endswith("json") else None
    for name in ("a PNG", "a web page", "a pointer of Git LFS"):
        with pytest.raises(WeightsError, match=f"looks like {name}"):
            tubelet.load(laid_out(tmp_path / "model", config, place, contents[name]), device="cpu")
    with pytest.raises(WeightsError, match="looks like a pickle, which may run anything"):
        tubelet.load(laid_out(tmp_path / "model", config, place, contents["a pickle that runs"]), device="cpu")


# What a folder says of itself ----------------------------------------------------------------------------------------

SIZE = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 80}
DINO = {name: SIZE[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
GRID = {"image_size": 16, "patch_size": 8}
CLIP = {**GRID, "num_frames": 4}
SOUND = {"max_length": 32, "num_mel_bins": 32, "time_stride": 10, "frequency_stride": 10}
JEPA = {"patch_size": 8, "crop_size": 16, "frames_per_clip": 4, "num_pooler_layers": 1, "pred_hidden_size": 24}
MODELS = {
    "vit": ("ViTForImageClassification", SIZE | GRID),
    "deit": ("DeiTForImageClassificationWithTeacher", SIZE | GRID),
    "vit_msn": ("ViTMSNForImageClassification", SIZE | GRID),
    "dinov2": ("Dinov2ForImageClassification", DINO | GRID),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", DINO | GRID),
    "dinov3_vit": ("DINOv3ViTModel", SIZE | GRID),
    "clip_vision_model": ("CLIPVisionModel", SIZE | GRID),
    "siglip_vision_model": ("SiglipVisionModel", SIZE | GRID),
    "vivit": ("VivitForVideoClassification", SIZE | {"image_size": 16, "num_frames": 4, "tubelet_size": (2, 8, 8)}),
    "videomae": ("VideoMAEForVideoClassification", SIZE | CLIP),
    "timesformer": ("TimesformerForVideoClassification", SIZE | CLIP),
    "vjepa2": ("VJEPA2ForVideoClassification", DINO | JEPA | {"pred_num_attention_heads": 2}),
    "audio-spectrogram-transformer": ("ASTForAudioClassification", SIZE | SOUND),
}
KEYS = {
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act", "layer_norm_eps"),
    *("image_size", "patch_size", "num_channels", "id2label", "problem_type", "mlp_ratio", "use_swiglu_ffn"),
    *("num_register_tokens", "use_gated_mlp", "rope_theta", "num_frames", "tubelet_size", "attention_type"),
    *("max_length", "num_mel_bins", "time_stride", "frequency_stride", "crop_size", "frames_per_clip", "in_chans"),
    *("num_pooler_layers", "vision_config"),
}
WRONG = (None, True, "x", -1, 0, 0.5, 10**9, 1e308, float("nan"), [], [1, 2], {}, {"x": []})
PROCESSOR = {
    "size": {"shortest_edge": 20},
    "crop_size": {"height": 16, "width": 16},
    "do_center_crop": True,
    "rescale_factor": 1 / 255,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
    "resample": 3,
    "sampling_rate": 16_000,
    "mean": -4.0,
    "std": 4.0,
}


def checkpoint_of(kind):
    """A good one: its tensors and its config.json."""
    name, settings = MODELS[kind]
    model = getattr(transformers, name)
    model = model(model.config_class(id2label={0: "a", 1: "b"}, **settings))
    return model.state_dict(), json.loads(model.config.to_json_string(use_diff=False)) | {"model_type": kind}


def refused(tensors, config, processor=None):
    """ "" where a checkpoint loads, or is refused as it should be; else what happened."""
    start = time.process_time()
    try:
        read_checkpoint(Checkpoint.of(tensors, config, processor, origin="model"))
    except WeightsError as error:
        if not str(error).startswith("model: ") or not str(error).replace("\n", "").isprintable():
            return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "took long" if time.process_time() - start > 1 else ""


@pytest.mark.parametrize("kind", MODELS)
def test_wrong_values_of_a_config_are_our_errors(kind):
    (tensors, config), before = checkpoint_of(kind), peak()
    found = {}
    for number, key in enumerate(sorted(KEYS & config.keys())):
        for value in (WRONG[number % len(WRONG)], WRONG[(number + 6) % len(WRONG)], 10**9):
            found[f"{key}={value}"] = refused(tensors, config | {key: value})
    for number, key in enumerate(PROCESSOR):
        for value in (WRONG[number % len(WRONG)], WRONG[(number + 7) % len(WRONG)], 10**9):
            found[f"processor's {key}={value}"] = refused(tensors, config, PROCESSOR | {key: value})
    assert {name: said for name, said in found.items() if said} == {}
    assert peak() - before < 100


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "video_preprocessor_config.json"])
@pytest.mark.parametrize("kind", ["vit", "vjepa2"])
def test_what_is_no_description_is_refused_in_a_line(tmp_path, kind, file):
    tensors, config = checkpoint_of(kind)
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    wrong = []
    for name, content in {**hostile_contents(tmp_path / "executed"), "a list": b"[]", "null": b"null"}.items():
        (tmp_path / file).write_bytes(content)
        try:
            tubelet.load(tmp_path, device="cpu")
            wrong.append((name, "loaded"))
        except WeightsError as error:
            if "\n" in str(error) or str(tmp_path) not in str(error):
                wrong.append((name, str(error)))
        except Exception as error:
            wrong.append((name, f"{type(error).__name__}: {error}"))
    assert [one for one in wrong if not (file != "config.json" and one == ("JSON", "loaded"))] == []
    assert not (tmp_path / "executed").exists()


# Shapes that do not fit ----------------------------------------------------------------------------------------------

WRONG_SHAPES = ((), (0,), (1,), (3, 5), (1, 1, 1), (2, 0, 7), (1, 2, 3, 4, 5))
WRONG_TYPES = (torch.int64, torch.bool, torch.complex64)


def wrong_tensors(tensors):
    """Each of ``tensors`` in turn: gone, of another shape, of no floats, or longer."""
    for number, (name, x) in enumerate(tensors.items()):
        others = {other: y for other, y in tensors.items() if other != name}
        match number % 4:
            case 0:
                yield f"{name} missing", others
            case 1:
                shape = WRONG_SHAPES[number // 4 % len(WRONG_SHAPES)]
                yield f"{name} of shape {shape}", others | {name: torch.ones(shape)}
            case 2:
                kind = WRONG_TYPES[number // 4 % len(WRONG_TYPES)]
                yield f"{name} of {kind}", others | {name: x.to(kind)}
            case _:
                yield f"{name} longer", others | {name: torch.cat([x, x]) if x.ndim else x[None]}


@pytest.mark.parametrize("kind", MODELS)
def test_tensors_that_do_not_fit_are_our_errors(kind):
    tensors, config = checkpoint_of(kind)
    found = {name: refused(wrong, config) for name, wrong in wrong_tensors(tensors)}
    assert {name: said for name, said in found.items() if said} == {}


RELEASED = {
    "model_1": (released.model_1(8), ViViTConfig),
    "model_2": (released.model_2(4, 4), None),
    "mtv": (released.mtv(), None),
    "mbt": (released.mbt(), None),
    "polyvit": (released.polyvit(), None),
    "token_learner": (released.token_learner(), None),
}


@pytest.mark.parametrize("kind", RELEASED)
def test_arrays_that_do_not_fit_are_our_errors(kind):
    shapes, like = RELEASED[kind]
    size = TransformerConfig(width=16, depth=2, heads=2, mlp=32)
    video = VideoSpec(frames=4, size=(8, 8), short_side=9)
    config = like(backbone=size, tubelet=(2, 4, 4), video=video) if like else None
    tensors = {name: torch.from_numpy(x) for name, x in released.filled(shapes).items()}
    found = {}
    for name, wrong in wrong_tensors(tensors):
        try:
            read_checkpoint(Checkpoint("model", lambda wrong=wrong: wrong, like=config))
        except WeightsError as error:
            found[name] = "" if str(error).startswith("model: ") else str(error)
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
    assert {name: said for name, said in found.items() if said} == {}
    assert found


# Initialization from them --------------------------------------------------------------------------------------------


def test_a_start_from_such_a_file_is_refused_too(tmp_path):
    config = ViTConfig(
        backbone=TransformerConfig(width=16, depth=1, heads=2, mlp=32),
        patch=(8, 8),
        image=ImageSpec(size=(16, 16), short_side=16),
    )
    code = zipped(archive__data_pkl=pickle.dumps(Touch(tmp_path / "executed"), protocol=2), archive__version="3")
    (tmp_path / "weights.pth").write_bytes(code)
    with pytest.raises(WeightsError, match=r"weights\.pth: not readable as weights alone .*; save its state dict"):
        tubelet.create_model(config, weights=tmp_path / "weights.pth")
    assert not (tmp_path / "executed").exists()


def test_a_pipe_is_not_waited_for(tmp_path):
    for name in ("weights.safetensors", "weights.pt", "weights.npz", "checkpoint_7"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(WeightsError, match="must be a file"):
            open_checkpoint(tmp_path / name).tensors  # noqa: B018
    with contextlib.suppress(WeightsError):
        tubelet.load(tmp_path / "checkpoint_7")
