"""One golden: reference vectors that the papers' released code computed, and what it was given."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tubelet.weights.formats import scenic
from tubelet.weights.formats.tree import Tree

# The released code ran in float32; a float64 forward pass is within 1.4e-6 of its logits. Another processor rounds
# otherwise: 5.1e-6 was seen.
TOLERANCE, RELATIVE = 5e-6, 1e-5


@dataclass(frozen=True)
class Golden:
    path: Path
    module: str
    config: dict[str, Any]
    arrays: Mapping[str, np.ndarray]

    def tensor(self, name: str) -> Tensor:
        return torch.from_numpy(np.asarray(self.arrays[name]))

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays whose names start with ``prefix``, without it."""
        return {n.removeprefix(prefix): self.arrays[n] for n in self.arrays if n.startswith(prefix)}

    def tree(self, prefix: str) -> Tree:
        return scenic.as_tree(self.under(prefix), f"{self.path.name}: {prefix}")


def describe(path: Path) -> tuple[str, dict[str, Any]]:
    """The module and the config that a golden's json names: all that decides which check it gets."""
    data = json.loads(path.read_text())
    data = data if isinstance(data, dict) else {}
    return data.get("module", ""), data.get("config", data.get("model", {}))


def read(path: Path) -> Golden:
    module, config = describe(path)
    with np.load(path.with_suffix(".npz")) as file:
        return Golden(path, module, config, {name: file[name] for name in file.files})


def close(ours: Any, golden: Any, tolerance: float = TOLERANCE, what: str = "") -> None:
    """``ours`` is the golden up to an absolute difference of ``tolerance`` and a relative one of 1e-5, in the same
    shape."""
    ours, golden = np.asarray(torch.as_tensor(ours).detach()), np.asarray(golden)
    assert ours.shape == golden.shape, f"{what}: ours {ours.shape}, golden {golden.shape}"
    np.testing.assert_allclose(ours, golden, rtol=RELATIVE, atol=tolerance, err_msg=what)
