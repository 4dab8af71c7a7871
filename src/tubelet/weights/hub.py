"""Models on the Hugging Face hub: fetched by ``hf:org/name``, and shared."""

from __future__ import annotations

from pathlib import Path

from tubelet.weights.errors import WeightsError

HUB = "hf:"
_FILES = ["*.json", "*.safetensors", "*.md"]


def fetch(source: str) -> Path:
    """The folder of ``hf:org/name``, downloaded once and kept in huggingface_hub's cache."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source.removeprefix(HUB), allow_patterns=_FILES))
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{source}: cannot be fetched: {error}. Check the name and the network; "
            "a private or gated model needs `hf auth login`"
        ) from error


def share(folder: str | Path, repository: str, *, private: bool = False) -> str:
    """Upload a model folder to ``hf:org/name`` (created where it is not there yet); the address of the commit."""
    from huggingface_hub import HfApi

    if not (Path(folder) / "tubelet.json").is_file():
        raise WeightsError(f"{folder}: no model folder (it has no tubelet.json); nothing was uploaded")
    name, api = repository.removeprefix(HUB), HfApi()
    api.create_repo(name, private=private, exist_ok=True)
    return str(api.upload_folder(repo_id=name, folder_path=folder, commit_message="Model folder written by Tubelet"))
