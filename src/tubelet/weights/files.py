"""Files of weights: reading them, fetching them from the Hugging Face hub, sharing them there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

HUB = "hf:"
_HUB_FILES = ["*.json", "*.safetensors", "*.md"]


class WeightsError(ValueError):
    """Weights that cannot be read, or that do not fit: the message names the keys and shapes and what to do next."""


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises WeightsError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(data, dict):
        raise WeightsError(f"{path}: must hold a JSON object")
    return data


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name. Raises WeightsError."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: not a whole safetensors file ({error}); fetch or save it again") from None


def fetch(source: str) -> Path:
    """Download ``hf:org/name`` into huggingface_hub's cache, unless it is there, and return its folder.

    Raises WeightsError.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source.removeprefix(HUB), allow_patterns=_HUB_FILES))
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{source}: cannot be fetched: {error}. Check the name and the network; "
            "a private or gated model needs `hf auth login`"
        ) from error


def share(folder: str | Path, repository: str, *, private: bool = False) -> str:
    """Upload a model folder to ``hf:org/name``, which is created if needed. Returns the address of the commit.

    Raises WeightsError where ``folder`` is no model folder.
    """
    from huggingface_hub import HfApi

    if not (Path(folder) / "tubelet.json").is_file():
        raise WeightsError(f"{folder}: no model folder (it has no tubelet.json); nothing was uploaded")
    name, api = repository.removeprefix(HUB), HfApi()
    api.create_repo(name, private=private, exist_ok=True)
    return str(api.upload_folder(repo_id=name, folder_path=folder, commit_message="Model folder written by Tubelet"))
