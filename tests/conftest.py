"""Fixtures that all tests share. Shapes and types in signatures are checked while testing (jaxtyping with beartype)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

# Some virtual machines announce AMX units that do not run; the first bfloat16 product would kill the tests.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
install_import_hook("tubelet", "typechecking.check")

settings.register_profile("tubelet", deadline=None)  # a busy machine is no failure
settings.load_profile("tubelet")


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for media files that several tests read and none changes."""
    return tmp_path_factory.mktemp("media")


@pytest.fixture(params=["pyav", "torchcodec"])
def decoder(request: pytest.FixtureRequest) -> str:
    """Each decoder that loads on this machine."""
    from tubelet.media.torchcodec_decoder import torchcodec_problem

    problem = torchcodec_problem() if request.param == "torchcodec" else None
    if problem is not None:
        pytest.skip(problem)
    return request.param


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """One thread, as training's worker processes have: the order of float additions depends on their number."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
