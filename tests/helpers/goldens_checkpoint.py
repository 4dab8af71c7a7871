"""A golden's parameters as the released trainer saves them: a checkpoint of flax, the optimizer's state beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from flax_files import write_flax
from tubelet.models import ModelConfig
from tubelet.weights.folder import load_model
from tubelet.weights.loaded import LoadedModel


def check_checkpoint(parameters: Mapping[str, np.ndarray], config: ModelConfig, state: Mapping[str, Tensor]) -> None:
    """The checkpoint is read as the model ``config``, its encoder's ``state`` bit for bit the same."""
    loaded = loaded_from(parameters, config)
    assert loaded.config == config
    found = loaded.model.encoder.state_dict()
    assert found.keys() == state.keys()
    for name, x in found.items():
        assert torch.equal(x, state[name]), name


def loaded_from(parameters: Mapping[str, np.ndarray], like: ModelConfig | None = None) -> LoadedModel:
    state = {
        **{f"optimizer/target/{name}": x for name, x in parameters.items()},
        **{f"optimizer/state/param_states/{name}/momentum": -x for name, x in parameters.items()},
        "optimizer/state/step": np.int32(7),
    }
    beside = {"global_step": 7, "model_state": {}, "rng": np.array([0, 1], np.uint32), "accum_train_time": 1.5}
    with TemporaryDirectory() as folder:
        return load_model(write_flax(Path(folder) / "checkpoint_7", state, **beside), like)
