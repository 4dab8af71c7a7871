"""Model folders as a stranger might make them: does loading one run code, end in a traceback, or take the machine?

    python benchmarks/hostile_folders.py --count 300

Every folder is loaded in a process of its own. Reported are the folders that ran code, that ended in another error than
the library's own, and that took more than 1 GB or five seconds of the processor beyond a plain load.
``hostile_folders`` makes the folders, the same ones for the same seed: first those that stand here by name, then random
changes of good ones.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import random
import resource
import struct
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import tubelet
from tubelet.configs import ConfigError
from tubelet.models import ViTConfig, ViViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import ImageSpec, VideoSpec
from tubelet.weights.files import WeightsError
from tubelet.weights.folder import load_model

EXECUTED = "executed"
"""The file in the root that appears where a folder ran code."""

_SMALL = TransformerConfig(width=16, depth=2, heads=2, mlp=32)
_HUGE = 10**9
_VALUES: list[Any] = [
    None, True, "", "x", "../../etc/passwd", "a.b", "\x1b[2J", 0, -1, 0.5, 1e308, 20_000, 10**6, _HUGE, 10**30, 2**63,
    float("nan"), float("inf"), -float("inf"), [], {}, [[]], [None], {"kind": "os.system"}, [_HUGE, _HUGE],
    "9" * 10_000, [10**6, 10**6], [1] * 10_000, {"": 0}, {"a": {"a": {}}},
]  # fmt: skip


class _Touch:
    """Pickled, it makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.open, (self.path, os.O_CREAT)


def hostile_folders(root: Path, count: int = 300, seed: int = 0) -> Iterator[tuple[str, Path]]:
    """``count`` hostile sources below ``root``, with a name each: folders, and .npz files."""
    good = root / "good"
    makers = {"own": _own, "video": _video, "huggingface": _huggingface, "timm": _timm}
    for name, make in makers.items():
        if not (good / name).exists():
            make(good / name)
    made = 0
    for name, change in _named(root):
        if made == count:
            return
        made += 1
        yield name, _changed(good, root / f"{made:04d}", change)
    rng = random.Random(seed)
    while made < count:
        made += 1
        kind = rng.choice(list(makers))
        change = rng.choice((_random_value, _random_value, _random_key, _random_bytes, _random_cut))
        yield (
            f"{kind} {change.__name__.strip('_')} {made}",
            _changed(
                good, root / f"{made:04d}", lambda at, kind=kind, change=change: change(_copy(good / kind, at), rng)
            ),
        )


Change = Callable[[Path], Path | None]


def _changed(good: Path, at: Path, change: Change) -> Path:
    at.mkdir()
    return change(at) or at


def _copy(source: Path, at: Path) -> Path:
    for file in source.iterdir():
        (at / file.name).write_bytes(file.read_bytes())
    return at


# Good folders --------------------------------------------------------------------------------------------------------


def _own(folder: Path) -> None:
    torch.manual_seed(0)
    config = ViTConfig(backbone=_SMALL, patch=(8, 8), image=ImageSpec(size=(16, 16), short_side=16))
    tubelet.create_model(config, num_classes=["a", "b", "c"]).save(folder)


def _video(folder: Path) -> None:
    torch.manual_seed(0)
    video = VideoSpec(frames=4, size=(16, 16), short_side=16)
    tubelet.create_model(ViViTConfig(backbone=_SMALL, tubelet=(2, 8, 8), video=video), num_classes=3).save(folder)


def _huggingface(folder: Path) -> None:
    folder.mkdir(parents=True)
    shapes = {
        "vit.embeddings.cls_token": (1, 1, 16),
        "vit.embeddings.position_embeddings": (1, 5, 16),
        "vit.embeddings.patch_embeddings.projection.weight": (16, 3, 8, 8),
        "vit.embeddings.patch_embeddings.projection.bias": (16,),
        **_layers({"vit.layernorm": (16,), "classifier": (3, 16)}),
    }
    for i in range(2):
        layer = f"vit.encoder.layer.{i}."
        parts = {f"{layer}attention.attention.{part}": (16, 16) for part in ("query", "key", "value")}
        norms = {f"{layer}layernorm_{side}": (16,) for side in ("before", "after")}
        mlp = {f"{layer}intermediate.dense": (32, 16), f"{layer}output.dense": (16, 32)}
        shapes |= _layers(parts | norms | mlp | {f"{layer}attention.output.dense": (16, 16)})
    save_file(_random_tensors(shapes), folder / "model.safetensors")
    config = {
        "model_type": "vit", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16,
        "intermediate_size": 32, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "patch_size": 8, "num_channels": 3,
        "id2label": {"0": "a", "1": "b", "2": "c"},
    }  # fmt: skip
    _write(folder / "config.json", config)
    _write(folder / "preprocessor_config.json", {"size": {"shortest_edge": 16}, "image_mean": [0.5] * 3})


def _timm(folder: Path) -> None:
    folder.mkdir(parents=True)
    shapes = {
        "cls_token": (1, 1, 16), "pos_embed": (1, 5, 16), **_layers({"patch_embed.proj": (16, 3, 8, 8), "norm": (16,)}),
        **_layers({"head": (3, 16)}),
    }  # fmt: skip
    for i in range(2):
        block = {"norm1": (16,), "norm2": (16,), "attn.qkv": (48, 16), "attn.proj": (16, 16)}
        mlp = {"mlp.fc1": (32, 16), "mlp.fc2": (16, 32)}
        shapes |= _layers({f"blocks.{i}.{name}": shape for name, shape in (block | mlp).items()})
    save_file(_random_tensors(shapes), folder / "model.safetensors")
    config = {"architecture": "vit", "pretrained_cfg": {"input_size": [3, 16, 16]}, "model_args": {"num_heads": 2}}
    _write(folder / "config.json", config)


def _layers(weights: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    both = {f"{name}.weight": shape for name, shape in weights.items()}
    return both | {f"{name}.bias": shape[:1] for name, shape in weights.items()}


def _random_tensors(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def _npz() -> dict[str, np.ndarray[Any, Any]]:
    shapes: dict[str, tuple[int, ...]] = {
        "embedding/kernel": (8, 8, 3, 16), "embedding/bias": (16,), "cls": (1, 1, 16),
        "Transformer/posembed_input/pos_embedding": (1, 5, 16), "Transformer/encoder_norm/scale": (16,),
        "Transformer/encoder_norm/bias": (16,), "head/kernel": (16, 3), "head/bias": (3,),
    }  # fmt: skip
    block, attention = "Transformer/encoderblock_0/", "Transformer/encoderblock_0/MultiHeadDotProductAttention_0/"
    for norm in ("LayerNorm_0", "LayerNorm_1"):
        shapes |= {f"{block}{norm}/scale": (16,), f"{block}{norm}/bias": (16,)}
    for part in ("query", "key", "value"):
        shapes |= {f"{attention}{part}/kernel": (16, 2, 8), f"{attention}{part}/bias": (2, 8)}
    shapes |= {f"{attention}out/kernel": (2, 8, 16), f"{attention}out/bias": (16,)}
    shapes |= {f"{block}MlpBlock_0/Dense_0/kernel": (16, 32), f"{block}MlpBlock_0/Dense_0/bias": (32,)}
    shapes |= {f"{block}MlpBlock_0/Dense_1/kernel": (32, 16), f"{block}MlpBlock_0/Dense_1/bias": (16,)}
    return {name: np.full(shape, 0.1, np.float32) for name, shape in shapes.items()}


# Hostile ones, by name -----------------------------------------------------------------------------------------------


def _named(root: Path) -> Iterator[tuple[str, Change]]:
    good = root / "good"
    for where, values in _KEYS.items():
        kind, file, path = where.split(":")
        for value in values:
            yield f"{where}={str(value)[:30]}", _setter(good / kind, file, path.split("/"), value)
    for name, content in _CONTENTS.items():
        for kind, file in (("own", "tubelet.json"), ("huggingface", "config.json")):
            yield f"{kind}:{file} {name}", _writer(good / kind, file, content)
    for name, content in _HEADERS.items():
        yield f"safetensors {name}", _writer(good / "own", "model.safetensors", content)
    for kind in ("own", "huggingface", "timm"):
        for name, change in _TENSORS.items():
            yield f"{kind} weights {name}", _tensors(good / kind, change)
    for name, make in _FILES.items():
        yield name, lambda at, make=make: make(good, at, root / EXECUTED)
    for name, change in _ARRAYS.items():
        yield f"npz {name}", lambda at, change=change: _archive(at, change, root / EXECUTED)


def _setter(source: Path, file: str, path: list[str], value: Any) -> Change:
    def change(at: Path) -> None:
        _copy(source, at)
        data = json.loads((at / file).read_text(encoding="utf-8"))
        inner = data
        for key in path[:-1]:
            inner = inner[key]
        inner.pop(path[-1], None) if value is ... else inner.__setitem__(path[-1], value)
        _write(at / file, data)

    return change


def _writer(source: Path, file: str, content: Callable[[], bytes]) -> Change:
    def change(at: Path) -> None:
        (_copy(source, at) / file).write_bytes(content())

    return change


def _tensors(source: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Change:
    def write(at: Path) -> None:
        path = _copy(source, at) / "model.safetensors"
        state = change({name: x.clone() for name, x in load_file(path).items()})
        path.unlink()
        save_file(state, path)

    return write


def _write(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data), encoding="utf-8")


_SIZES = (0, -1, 20_000, 10**6, _HUGE, 2**63, 10**30, 1.5, True, None, "16", [16])
_KEYS: dict[str, tuple[Any, ...]] = {
    "own:tubelet.json:tasks": (None, [], "x", {"a.b": {}}, {"a/../../b": {}}, {"": {}}, {"keys": {}}, ...),
    "own:tubelet.json:model": (None, [], {"kind": []}, {"kind": "os.system"}, {"kind": "__import__"}, ...),
    "own:tubelet.json:format": (None, 3, [], "\x1b[2J", 10**4000),
    "own:tubelet.json:provenance": (None, [], "x"),
    "own:tubelet.json:model/backbone/width": _SIZES,
    "own:tubelet.json:model/backbone/depth": _SIZES,
    "own:tubelet.json:model/backbone/heads": _SIZES,
    "own:tubelet.json:model/backbone/mlp": _SIZES,
    "own:tubelet.json:model/backbone/start": ("mimetic", []),
    "own:tubelet.json:model/backbone/head_width": (-1, _HUGE),
    "own:tubelet.json:model/backbone/norm_eps": (-1.0, float("nan"), 1e400),
    "own:tubelet.json:model/representation": (-5, _HUGE),
    "own:tubelet.json:model/patch": ([0, 0], [-1, 8], [7, 7], [_HUGE, 1], []),
    "own:tubelet.json:model/image/size": ([10**6, 10**6], [0, 0], [-16, 16], [16], [_HUGE, 1]),
    "own:tubelet.json:model/image/short_side": (_HUGE, -1),
    "own:tubelet.json:model/image/mean": ([float("nan")] * 3, [], [0.5], [0.5] * 10_000),
    "own:tubelet.json:model/image/std": ([0.0] * 3, [-1.0] * 3, [float("inf")] * 3),
    "own:tubelet.json:model/image/column": ("../../etc/passwd", "path."),
    "own:tubelet.json:tasks/label/classes": ([], ["a"], ["a"] * 3, [str(i) for i in range(10**6)], {"a.b": ["x"]}, 7),
    "own:tubelet.json:tasks/label/hidden": ([_HUGE], [0], [-1], [16] * 10_000),
    "own:tubelet.json:tasks/label/inputs": (["sound"], "image", [["image"]]),
    "own:tubelet.json:tasks/label/views": ("1000000x1", "x", "-1x1", "9" * 5000 + "x1", 4),
    "own:tubelet.json:tasks/label/metrics": ({"top1": float("nan")}, {f"m{i}": "x" for i in range(100_000)}),
    "video:tubelet.json:model/video/frames": (_HUGE, 0, -1, 2**31),
    "video:tubelet.json:model/video/fps": (-1.0, float("nan"), 1e-300, 1e300),
    "video:tubelet.json:model/video/stride": (0, -1),
    "video:tubelet.json:model/sampled_frames": (-1, _HUGE),
    "video:tubelet.json:model/temporal_depth": (-1,),
    "huggingface:config.json:hidden_act": (..., None, "relu", []),
    "huggingface:config.json:num_hidden_layers": (..., 10**6, 0, -1, "x"),
    "huggingface:config.json:hidden_size": (..., 0, 20_000, _HUGE),
    "huggingface:config.json:image_size": (..., [], 10**6, 0, [16]),
    "huggingface:config.json:patch_size": (0, 7, [8], None),
    "huggingface:config.json:num_channels": (0, 10**6, 1),
    "huggingface:config.json:id2label": ([], {"x": "y"}, {"0": 7}, None),
    "huggingface:config.json:model_type": ("vivit", "../vit", [], None),
    "huggingface:config.json:auto_map": ({"AutoModel": "modeling.Evil"},),
    "huggingface:preprocessor_config.json:size": (224, None, [], {"shortest_edge": "x"}, {"shortest_edge": _HUGE}),
    "huggingface:preprocessor_config.json:rescale_factor": (0, "x", 1e-320),
    "timm:config.json:pretrained_cfg": (None, [], {"input_size": 7}, {"input_size": [3, 0, 0]}, {"std": [0, 0, 0]}),
    "timm:config.json:model_args": (None, {"num_heads": -1}, {"num_heads": 7}, {"num_heads": "x"}),
    "timm:config.json:label_names": (7, [7, 7, 7]),
}

_CONTENTS: dict[str, Callable[[], bytes]] = {
    "is empty": lambda: b"",
    "is nested 50,000 deep": lambda: b"[" * 50_000 + b"]" * 50_000,
    "is nested 500 deep": lambda: b'{"format":2,"model":' + b"[" * 500 + b"]" * 500 + b"}",
    "is not UTF-8": lambda: b'{"format": "\xff\xfe"}',
    "has a byte order mark": lambda: b'\xef\xbb\xbf{"format": 2}',
    "is 64 MB of lists": lambda: b"{" + b'"a":[' + b"[]," * (2**26 // 3) + b"[]]}",
    "has 100,000 objects": lambda: b'{"tasks":{' + b",".join(b'"%d":{}' % i for i in range(100_000)) + b"}}",
    "is a list": lambda: b"[]",
    "is a number of 100,000 digits": lambda: b'{"format":' + b"9" * 100_000 + b"}",
    "is binary": lambda: bytes(range(256)) * 100,
}


def _safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _one(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


_HEADERS: dict[str, Callable[[], bytes]] = {
    "of nothing": lambda: b"",
    "whose header claims 2^63 bytes": lambda: _safetensors({}, length=2**63),
    "whose header claims 100 MB": lambda: _safetensors({}, b" " * 100, length=10**8),
    "whose header has 20 MB": lambda: _safetensors(b"{" + b" " * 20_000_000 + b"}"),
    "of no tensors": lambda: _safetensors({}),
    "of tensors that overlap": lambda: _safetensors(
        {"a": _one("F32", [2], 0, 8), "b": _one("F32", [2], 4, 12)}, bytes(12)
    ),
    "of offsets outside": lambda: _safetensors({"a": _one("F32", [2], 0, 8)}),
    "of an unknown type": lambda: _safetensors({"a": _one("F7", [2], 0, 8)}, bytes(8)),
    "of F8": lambda: _safetensors({"a": _one("F8_E4M3", [8], 0, 8)}, bytes(8)),
    "of F4": lambda: _safetensors({"a": _one("F4", [16], 0, 8)}, bytes(8)),
    "of 10^36 numbers": lambda: _safetensors({"a": _one("F32", [10**18, 10**18], 0, 8)}, bytes(8)),
    "of a negative shape": lambda: _safetensors({"a": _one("F32", [-2], 0, 8)}, bytes(8)),
    "of no numbers": lambda: _safetensors({"a": _one("F32", [0, 10**18], 0, 0)}),
    "of 100 axes": lambda: _safetensors({"a": _one("F32", [1] * 100, 0, 4)}, bytes(4)),
    "of a list": lambda: _safetensors([1]),
    "of names that move the cursor": lambda: _safetensors({"\x1b[2J\n": _one("F32", [1], 0, 4)}, bytes(4)),
    "of 8,000 tensors": lambda: _safetensors({f"{i}": _one("F32", [0], 0, 0) for i in range(8_000)}),
    "that is a pickle": lambda: pickle.dumps([1, 2, 3]),
}


def _with_first(
    change: Callable[[torch.Tensor], torch.Tensor],
) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    def apply(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        name = sorted(state)[0]
        return state | {name: change(state[name]).contiguous()}

    return apply


_TENSORS: dict[str, Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]] = {
    "NaN": _with_first(lambda x: x * float("nan")),
    "infinite": _with_first(lambda x: x + float("inf")),
    "float64 beyond float32": _with_first(lambda x: x.double() + 1e300),
    "integers": _with_first(lambda x: x.long()),
    "truth values": _with_first(lambda x: x > 0),
    "float8": _with_first(lambda x: x.to(torch.float8_e4m3fn)),
    "complex": _with_first(lambda x: x.to(torch.complex64)),
    "of no axes": _with_first(lambda x: torch.zeros(())),
    "of ten axes": _with_first(lambda x: x[(None,) * (10 - x.ndim)]),
    "without numbers": _with_first(lambda x: x[:0]),
    "one missing": lambda state: {name: x for name, x in state.items() if name != sorted(state)[0]},
    "one too many": lambda state: state | {"../../etc/passwd": torch.ones(1)},
    "8,000 too many": lambda state: state | {f"extra.{i}": torch.ones(1) for i in range(8_000)},
    "all of no axes": lambda state: {name: torch.zeros(()) for name in state},
    "all of three axes": lambda state: {name: torch.zeros(2, 2, 2) for name in state},
}


def _fifo(good: Path, at: Path, executed: Path, *, kind: str = "own", file: str = "tubelet.json") -> None:
    (_copy(good / kind, at) / file).unlink()
    os.mkfifo(at / file)


def _link(
    good: Path, at: Path, executed: Path, *, kind: str = "own", file: str = "tubelet.json", to: str = "/dev/zero"
) -> None:
    (_copy(good / kind, at) / file).unlink()
    (at / file).symlink_to(to)


def _folder(good: Path, at: Path, executed: Path, *, kind: str = "own", file: str = "tubelet.json") -> None:
    (_copy(good / kind, at) / file).unlink()
    (at / file).mkdir()


def _shards(good: Path, at: Path, executed: Path) -> None:
    (_copy(good / "huggingface", at) / "model.safetensors").unlink()
    _write(at / "model.safetensors.index.json", {"weight_map": {"classifier.weight": "../../../../etc/passwd"}})


def _pickles(good: Path, at: Path, executed: Path) -> None:
    (_copy(good / "huggingface", at) / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "model.pt", "model.ckpt", "model.pkl"):
        (at / name).write_bytes(pickle.dumps(_Touch(executed)))


def _python(good: Path, at: Path, executed: Path) -> None:
    _copy(good / "own", at)
    data = json.loads((at / "tubelet.json").read_text(encoding="utf-8"))
    data["model"]["kind"] = "plugin"
    data["plugin"] = "plugin.py"
    _write(at / "tubelet.json", data)
    for name in ("plugin.py", "__init__.py", "modeling.py", "conftest.py", "sitecustomize.py"):
        (at / name).write_text(f"open({str(executed)!r}, 'w')\n", encoding="utf-8")


def _run_config(good: Path, at: Path, executed: Path) -> None:
    _write(at / "config.json", {"experiment": [], "data": {"a": {"updates": "9" * 5000}, "b": {"updates": None}}})
    (at / "checkpoints" / "step-²").mkdir(parents=True)


def _sparse(good: Path, at: Path, executed: Path) -> None:
    with (_copy(good / "own", at) / "model.safetensors").open("r+b") as file:
        file.truncate(2**40)


_FILES: dict[str, Callable[..., None]] = {
    **{
        f"{file} is a pipe": lambda g, a, e, f=file: _fifo(g, a, e, file=f)
        for file in ("tubelet.json", "model.safetensors")
    },
    "config.json is a pipe": lambda g, a, e: _fifo(g, a, e, kind="timm", file="config.json"),
    "preprocessor_config.json is a pipe": lambda g, a, e: _fifo(
        g, a, e, kind="huggingface", file="preprocessor_config.json"
    ),
    **{
        f"{file} is /dev/zero": lambda g, a, e, f=file: _link(g, a, e, file=f)
        for file in ("tubelet.json", "model.safetensors")
    },
    "config.json is /dev/zero": lambda g, a, e: _link(g, a, e, kind="timm", file="config.json"),
    "tubelet.json is /etc/passwd": lambda g, a, e: _link(g, a, e, to="/etc/passwd"),
    "model.safetensors is /etc/passwd": lambda g, a, e: _link(g, a, e, file="model.safetensors", to="/etc/passwd"),
    "tubelet.json is a link to itself": lambda g, a, e: _link(g, a, e, to="tubelet.json"),
    "tubelet.json is a folder": _folder,
    "model.safetensors is a folder": lambda g, a, e: _folder(g, a, e, file="model.safetensors"),
    "shards outside": _shards,
    "pickles": _pickles,
    "Python files": _python,
    "a run without sense": _run_config,
    "a safetensors file of 1 TB of holes": _sparse,
}


def _archive(at: Path, change: Callable[[Path, Path], Any], executed: Path) -> Path:
    path = at / "vit.npz"
    change(path, executed)
    return path


def _claims(path: Path, shape: str, dtype: str = "<f4", compression: int = zipfile.ZIP_STORED, zeros: int = 64) -> None:
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}"
    text = header.encode().ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("cls.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(zeros))


def _with(name: str, value: Any) -> Callable[[Path, Path], Any]:
    arrays: dict[str, Any] = _npz() | {name: value}
    return lambda path, _: np.savez(path, **arrays)


_ARRAYS: dict[str, Callable[[Path, Path], Any]] = {
    "of 400 GB": lambda path, _: _claims(path, "(100000000000,)"),
    "of a negative shape": lambda path, _: _claims(path, "(-4, -4)"),
    "of no numbers": lambda path, _: _claims(path, f"(0, {10**30})", zeros=0),
    "that unpacks to 100 MB": lambda path, _: _claims(path, "(25000000,)", "<f4", zipfile.ZIP_DEFLATED, 100_000_000),
    "that is code": lambda path, _: _claims(path, "__import__('os').abort()"),
    "nested deeply": lambda path, _: _claims(path, "(" * 1000 + ")" * 1000),
    "of pickled objects": lambda path, executed: np.savez(path, cls=np.array([_Touch(executed)], object)),
    "that is a .npy": lambda path, _: path.write_bytes(b"\x93NUMPY" + bytes(200)),
    "that is no zip": lambda path, _: path.write_bytes(b"PK" + bytes(200)),
    "of 30,000 members": lambda path, _: _members(path, 30_000),
    "of integers": _with("cls", np.zeros((1, 1, 16), np.int64)),
    "of text": _with("cls", np.array(["x"])),
    "of NaN": _with("cls", np.full((1, 1, 16), np.nan, np.float32)),
    "of float64 beyond float32": _with("cls", np.full((1, 1, 16), 1e300)),
    "of a single number": _with("embedding/kernel", np.float32(1)),
    "of other axes": _with(
        "Transformer/encoderblock_0/MultiHeadDotProductAttention_0/query/bias", np.ones(7, np.float32)
    ),
    "of positions in no square": _with("Transformer/posembed_input/pos_embedding", np.ones((1, 8, 16), np.float32)),
    "of a pipe": lambda path, _: os.mkfifo(path),
}


def _members(path: Path, count: int) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(count):
            archive.writestr(f"{i}.npy", b"")


# Random changes of good ones -----------------------------------------------------------------------------------------


def _description(folder: Path) -> Path:
    return next(path for name in ("tubelet.json", "config.json") if (path := folder / name).exists())


def _places(data: Any) -> list[tuple[Any, Any]]:
    """Every object or list in JSON, with each of its keys."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [place for key, value in items for place in [(data, key), *_places(value)]]


def _random_value(folder: Path, rng: random.Random) -> None:
    data = json.loads(_description(folder).read_text(encoding="utf-8"))
    for _ in range(rng.randint(1, 2)):
        inner, key = rng.choice(_places(data))
        inner[key] = rng.choice(_VALUES)
    _write(_description(folder), data)


def _random_key(folder: Path, rng: random.Random) -> None:
    data = json.loads(_description(folder).read_text(encoding="utf-8"))
    inner, key = rng.choice([place for place in _places(data) if isinstance(place[0], dict)])
    value = inner.pop(key)
    if rng.random() < 0.5:
        inner[rng.choice(("", "x" * 10_000, "../..", "a.b", "\x1b[2J", "forward"))] = value
    _write(_description(folder), data)


def _random_bytes(folder: Path, rng: random.Random) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 8)):
        content[rng.randrange(min(len(content), 4096))] = rng.randrange(256)
    path.write_bytes(content)


def _random_cut(folder: Path, rng: random.Random) -> None:
    path = rng.choice([_description(folder), folder / "model.safetensors"])
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


# Measuring -----------------------------------------------------------------------------------------------------------


def measure(source: Path) -> tuple[str, float, float]:
    """What loading does in a process of its own: its outcome, seconds of the processor, MB at the peak."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
        began, before = time.process_time(), _peak()
        try:
            load_model(source)
            outcome = "loaded"
        except (WeightsError, ConfigError) as error:
            outcome = f"error: {error}"
        except BaseException as error:
            outcome = f"TRACEBACK: {type(error).__name__}: {error}"
        told = json.dumps((outcome[:300], time.process_time() - began, _peak() - before))
        os.write(write, told.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        told = answer.read()
    os.waitpid(child, 0)
    return tuple(json.loads(told)) if told else ("KILLED", 60.0, 0.0)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="how many folders")
    parser.add_argument("--seed", type=int, default=0, help="of the random ones")
    parser.add_argument("--all", action="store_true", help="print every outcome")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        counts: dict[str, int] = dict.fromkeys(("loaded", "error", "TRACEBACK", "KILLED"), 0)
        slow = large = executed = 0
        _own(root / "good" / "own")
        _, plain, _ = measure(root / "good" / "own")
        for name, source in hostile_folders(root, options.count, options.seed):
            outcome, seconds, peak = measure(source)
            kind = outcome.partition(":")[0]
            counts[kind] += 1
            ran = (root / EXECUTED).exists()
            (root / EXECUTED).unlink(missing_ok=True)
            odd = kind in ("TRACEBACK", "KILLED") or ran or seconds > plain + 5 or peak > 1024
            slow, large, executed = slow + (seconds > plain + 5), large + (peak > 1024), executed + ran
            if odd or options.all:
                print(f"{name}: {outcome} ({seconds:.1f} s, {peak:.0f} MB{', RAN CODE' if ran else ''})")
        print(f"{counts}; ran code: {executed}; over 1 GB: {large}; 5 s slower than a plain load: {slow}")


if __name__ == "__main__":
    main()
