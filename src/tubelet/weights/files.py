"""Files of weights: reading them, fetching them from the Hugging Face hub, sharing them there."""

from __future__ import annotations

import io
import json
import math
import os
import stat
import zipfile
from pathlib import Path
from typing import IO, Any, TypeGuard

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

HUB = "hf:"
_HUB_FILES = [
    f"{folder}{file}"
    for folder in ("", "model/")
    for file in ("tubelet.json", "config.json", "preprocessor_config.json", "model.safetensors", "README.md")
] + [
    "processor_config.json",
    "video_preprocessor_config.json",
    "model.safetensors.index.json",
    "model-*-of-*.safetensors",
]
_HUB_PICKLES = ["pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin"]
# What a file of someone else may make the library read before it knows what is in it: far more than any model needs.
_JSON_BYTES, _JSON_DEPTH, _JSON_LISTS = 2**24, 32, 20_000
MOST_NAMES = 2**20
"""The bytes that the names and shapes of a file's tensors may take."""
_LONGEST_LINE = 1000
_STATE = ("model", "state_dict", "module", "teacher", "model_state")  # where trainings keep a state dict
_PACKED = 8  # how much larger than its file an .npz may be; floats hardly shrink
_NPY_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class WeightsError(ValueError):
    """Weights that cannot be read, or that do not fit: the message names the keys and shapes and what to do next.

    What a file says of itself stands in it with everything escaped that could move a terminal's cursor.
    """

    def __init__(self, message: str) -> None:
        super().__init__("\n".join(_printable(line[:_LONGEST_LINE]) for line in message.split("\n")))


def reason(error: Exception) -> str:
    """What an error says: its first line, as torch puts a stack of its own below."""
    return str(error).partition("\n")[0]


_TEXT, _ZIP = "text", "a zip archive, as torch and NumPy write"
_STARTS = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x1f\x8b": "a gzip archive",
    b"PK": _ZIP,
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a single array of NumPy",
    b"version https://git-lfs": "a pointer of Git LFS, which `git lfs pull` replaces by the file",
    b"<!DOCTYPE": "a web page",
    b"<html": "a web page",
    **{bytes([0x80, protocol]): "a pickle, which may run anything" for protocol in range(2, 6)},
}


def looks_like(path: Path, wanted: str = "") -> str:
    """What a file is that is not what it should be: "it is empty", "it looks like a PNG picture"; "" where nothing
    tells, or where it looks like what is ``wanted``."""
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        return "it is empty"
    found = next((name for magic, name in _STARTS.items() if start.startswith(magic)), "")
    if not found and start.isascii() and start.decode().replace("\n", " ").isprintable():
        found = _TEXT
    return f"it looks like {found}" if found and found != wanted else ""


def _printable(line: str) -> str:
    return line if line.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def check_file(path: Path) -> None:
    """Raise WeightsError unless ``path`` is a file: a pipe or a device may never end."""
    try:
        is_file = stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    if not is_file:
        raise WeightsError(f"{path}: must be a file, and is a folder, a pipe or a device")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file, which may have 16 MiB and 20,000 objects and lists, 32 deep. Raises WeightsError."""
    check_file(path)
    with path.open("rb") as file:
        content = file.read(_JSON_BYTES + 1)
    if len(content) > _JSON_BYTES:
        raise WeightsError(f"{path}: larger than {_JSON_BYTES // 2**20} MiB, which no description of a model is")
    try:
        data = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        fault = looks_like(path, _TEXT) or error
        raise WeightsError(f"{path}: not readable as JSON ({fault}); fetch or save it again") from None
    if not isinstance(data, dict):
        raise WeightsError(f"{path}: must hold a JSON object")
    if (fault := _too_much(data)) is not None:
        raise WeightsError(f"{path}: {fault}, which no description of a model has")
    return data


def _too_much(data: dict[str, Any]) -> str | None:
    """What of ``data`` is more than a description has: its depth, or its objects and lists."""
    level: list[Any] = [data]
    lists = depth = 0
    while level:
        lists, depth = lists + len(level), depth + 1
        if depth > _JSON_DEPTH:
            return f"nested more than {_JSON_DEPTH} deep"
        if lists > _JSON_LISTS:
            return f"more than {_JSON_LISTS:,} objects and lists"
        inner = (value for one in level for value in (one.values() if isinstance(one, dict) else one))
        level = [value for value in inner if isinstance(value, dict | list)]
    return None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name: mapped, so that only what is used is read. Raises WeightsError."""
    check_file(path)
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    fault = looks_like(path)
    if header > MOST_NAMES:
        fault = fault or f"it claims {header:,} bytes of names and shapes, and a model has at most {MOST_NAMES:,}"
        raise WeightsError(f"{path}: not a whole safetensors file ({fault}); fetch or save it again")
    try:
        tensors = load_file(path)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        fault = fault or reason(error)
        raise WeightsError(f"{path}: not a whole safetensors file ({fault}); fetch or save it again") from None
    if not tensors:
        raise WeightsError(f"{path}: holds no tensors; fetch or save it again")
    return tensors


def read_arrays(path: Path) -> dict[str, Tensor]:
    """The arrays of an .npz, which must be floats, by name. Raises WeightsError.

    What an array claims to be is compared with what is there before memory is taken for it, and nothing is unpickled.
    """
    check_file(path)
    try:
        with _Listed(path) as file, zipfile.ZipFile(file) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            unpacked = sum(info.file_size for info in members.values())
            if unpacked > max(_PACKED * path.stat().st_size, _JSON_BYTES):
                raise ValueError(f"it claims to unpack to {unpacked:,} bytes")
            for name, info in members.items():
                with archive.open(info) as member:
                    _check_array(name, member, info.file_size)
            return {name: _read_array(archive, info) for name, info in members.items()}
    except Exception as error:  # zipfile, zlib and NumPy have many names for a file that is not what it says
        fault = looks_like(path, _ZIP) or reason(error)
        raise WeightsError(f"{path}: not a readable .npz of arrays ({fault}); fetch or save it again") from error


def read_sharded(index: Path) -> dict[str, Tensor]:
    """The tensors of all files that an index of transformers names, which lie beside it. Raises WeightsError."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise WeightsError(f"{index}: has no weight_map, which says which file has which parameter")
    for name, file in places.items():
        if not isinstance(file, str) or file != Path(file).name or Path(file).suffix not in (".safetensors", ".bin"):
            raise WeightsError(f"{index}: {name} must lie in a .safetensors or .bin file of the same folder")
    tensors: dict[str, Tensor] = {}
    for file in sorted(set(places.values())):
        read = read_tensors if file.endswith(".safetensors") else read_pickled
        tensors |= read(index.with_name(file))
    if missing := next((name for name in places if name not in tensors), None):
        raise WeightsError(f"{index}: {places[missing]} has no {missing}; fetch or save both again")
    return tensors


def read_pickled(path: Path) -> dict[str, Tensor]:
    """The state dict in a file of ``torch.save``, mapped: alone, or where trainings keep it, such as under "model".

    Nothing in it runs: torch's reader for weights alone makes tensors and plain data, and refuses everything else.
    Raises WeightsError, for files from before torch 1.6 too, which are not mapped.
    """
    check_file(path)
    again = "save its state dict as safetensors"
    try:
        with _Listed(path) as file, zipfile.ZipFile(file) as archive:
            packed = any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist())
    except Exception as error:
        fault = looks_like(path, _ZIP) or reason(error)
        raise WeightsError(f"{path}: no file that torch 1.6 or newer saved ({fault}); {again}") from None
    if packed:
        raise WeightsError(f"{path}: is compressed, which torch does not do; {again}")
    try:
        data = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch's reader has many names for a file that is not what it says
        raise WeightsError(f"{path}: not readable as weights alone ({reason(error)}); {again}") from None
    state = next((data[key] for key in _STATE if isinstance(data.get(key), dict)), data) if _is_dict(data) else None
    found = {name: x for name, x in state.items() if isinstance(x, Tensor)} if _is_dict(state) else {}
    if not found or not all(isinstance(name, str) for name in found):
        raise WeightsError(f"{path}: holds no state dict; {again}")
    for name, x in found.items():
        if x.layout != torch.strided or x.numel() * x.element_size() > x.untyped_storage().nbytes():
            raise WeightsError(f"{path}: {name} claims the shape {tuple(x.shape)}, which its bytes do not hold")
    return found


def _is_dict(data: Any) -> TypeGuard[dict[Any, Any]]:
    return isinstance(data, dict)


class _Listed(io.FileIO):
    """A file whose list of zip members is short: zipfile reads that in one piece, and everything else in small ones."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = os.fstat(self.fileno()).st_size - self.tell()
        if size > MOST_NAMES:
            raise zipfile.BadZipFile(f"its list of arrays is longer than {MOST_NAMES:,} bytes")
        return super().read(size)


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Tensor:
    with archive.open(info) as member, np.errstate(over="ignore"):
        array = np.lib.format.read_array(member, allow_pickle=False)
        return torch.from_numpy(array.astype(np.float32, copy=False))


def _check_array(name: str, member: IO[bytes] | io.BufferedIOBase, size: int) -> None:
    """Raise ValueError unless the member of an .npz has as many floats as its header says."""
    version = np.lib.format.read_magic(member)
    if version not in _NPY_HEADERS:
        raise ValueError(f"{name}: version {version} of .npy")
    shape, _, dtype = _NPY_HEADERS[version](member)
    if dtype.kind != "f":
        raise ValueError(f"{name} holds {dtype}, and weights are floats")
    if math.prod(shape) * dtype.itemsize != size - member.tell():
        raise ValueError(f"{name} claims the shape {shape}, which its {size:,} bytes do not hold")


def fetch(source: str) -> Path:
    """Download ``hf:org/name`` into huggingface_hub's cache, unless it is there, and return its folder.

    Raises WeightsError.
    """
    from huggingface_hub import snapshot_download

    try:
        name = source.removeprefix(HUB)
        folder = Path(snapshot_download(name, allow_patterns=_HUB_FILES))
        if not any(folder.glob("**/*.safetensors*")):
            snapshot_download(name, allow_patterns=_HUB_PICKLES)
        return folder
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{source}: cannot be fetched: {error}. Check the name and the network; "
            "a private or gated model needs `hf auth login`"
        ) from error


def share(folder: str | Path, repository: str, *, private: bool = False) -> str:
    """Upload a folder that holds a model to ``hf:org/name``, which is created if needed. Returns the address of the
    commit.

    Raises WeightsError where ``folder`` is no model folder, and where the hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi

    if not any((Path(folder) / name).is_file() for name in ("tubelet.json", "config.json")):
        raise WeightsError(f"{folder}: no model folder (it has no tubelet.json or config.json); nothing was uploaded")
    name, api = repository.removeprefix(HUB), HfApi()
    try:
        api.create_repo(name, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=folder, commit_message="Written by Tubelet"))
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{HUB}{name}: cannot be uploaded to: {error}. Check the name and the network, and log in with "
            "`hf auth login`"
        ) from error
