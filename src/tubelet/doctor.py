"""What this machine offers Tubelet, what is missing, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tubelet.hardware import bfloat16_fault, cpu_info, native_bfloat16
from tubelet.threads import limit_spinning, waiting
from tubelet.version import __version__

_REQUIRED = ("numpy", "av", "pillow", "safetensors", "huggingface-hub", "pyarrow", "scikit-learn", "tensorboard")
_SHARED_MEMORY = Path("/dev/shm")
_GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """One line of the report. ``state``: "ok", "note" (works, but could be better) or "missing" (something fails).

    ``advice`` says what to do next; empty if there is nothing to do.
    """

    topic: str
    name: str
    found: str
    state: Literal["ok", "note", "missing"] = "ok"
    advice: str = ""


def examine() -> list[Finding]:
    """Check versions, decoders, devices, threads, memory and disk, and distributed training."""
    return [*_versions(), *_decoders(), *_devices(), *_processor(), *_storage(), *_distributed(), *_extras()]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _versions() -> Iterator[Finding]:
    yield Finding("versions", "tubelet", f"{__version__} in {Path(__file__).parent}")
    yield Finding("versions", "python", f"{platform.python_version()} on {platform.platform()}")
    import torch

    yield Finding("versions", "torch", torch.__version__)
    others = {package: _version(package) for package in _REQUIRED}
    yield Finding("versions", "packages", ", ".join(f"{k} {v}" for k, v in others.items() if v))
    if absent := [package for package, version in others.items() if not version]:
        advice = f"pip install {' '.join(absent)}"
        yield Finding("versions", "packages", f"no {', '.join(absent)}", state="missing", advice=advice)


def _decoders() -> Iterator[Finding]:
    try:
        import av
    except ImportError as error:
        advice = "pip install --force-reinstall av   (its wheel brings FFmpeg along)"
        yield Finding("decoders", "PyAV", _last_line(error), state="missing", advice=advice)
    else:
        codec = ".".join(map(str, av.library_versions["libavcodec"]))
        yield Finding("decoders", "PyAV", f"{av.__version__} with its own FFmpeg (libavcodec {codec})")
    yield _torchcodec()


def _torchcodec() -> Finding:
    from tubelet.media.torchcodec_decoder import torchcodec_problem

    version, problem = _version("torchcodec"), torchcodec_problem()
    if problem is None:
        return Finding("decoders", "torchcodec", f"{version} loads")
    if not version:
        return Finding("decoders", "torchcodec", "not installed, and not needed", advice=problem)
    return Finding("decoders", "torchcodec", f"{version} does not load", state="note", advice=problem)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:160] if lines else type(error).__name__


def _devices() -> Iterator[Finding]:
    import torch

    for i in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(i)
        bf16 = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16: train in float32"
        found = f"{card.name}, {card.total_memory / _GIB:.0f} GiB, compute {card.major}.{card.minor}, {bf16}"
        yield Finding("devices", f"cuda:{i}", found)
    if torch.backends.mps.is_available():
        yield Finding("devices", "mps", "Apple's GPU")
    if torch.cuda.device_count():
        return
    if shutil.which("nvidia-smi"):
        build = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is a CPU build"
        yield Finding(
            "devices",
            "cuda",
            f"an NVIDIA driver is here, but torch {torch.__version__} {build} and sees no GPU",
            state="missing",
            advice="reinstall torch for the CUDA that `nvidia-smi` names: https://pytorch.org/get-started/locally",
        )
    elif not torch.backends.mps.is_available():
        advice = "enough for the demo and small models; the papers' models need GPUs"
        yield Finding("devices", "gpu", "none; the CPU computes", advice=advice)


def _processor() -> Iterator[Finding]:
    import torch

    cores = usable_cores()
    yield Finding("processor", "cores", f"{cores} usable of {os.cpu_count()}; {_cpu_name()}")
    threads = torch.get_num_threads()
    asked = os.environ.get("OMP_NUM_THREADS", "")
    found = f"torch computes with {threads}" + (f" (OMP_NUM_THREADS={asked})" if asked else "")
    if threads > cores:
        advice = f"more threads than cores slow each other down: export OMP_NUM_THREADS={cores}"
        yield Finding("processor", "threads", found, state="note", advice=advice)
    elif threads < cores and asked:
        advice = f"{cores - threads} cores stay idle outside the data workers: unset OMP_NUM_THREADS to use them"
        yield Finding("processor", "threads", found, state="note", advice=advice)
    else:
        yield Finding("processor", "threads", found)
    yield _spinning()
    yield _bfloat16()


def _spinning() -> Finding:
    """How long waiting threads keep their cores busy."""
    name, found = "idle threads", waiting()
    maps = Path("/proc/self/maps")
    if maps.is_file() and "libgomp" not in maps.read_text():
        return Finding("processor", name, f"{found}; not used, for torch's OpenMP is not GNU's")
    if not limit_spinning():
        advice = f"torch was imported before tubelet: import tubelet first, or export {found}"
        return Finding(
            "processor", name, "spin for long, and slow down whatever else runs", state="note", advice=advice
        )
    return Finding("processor", name, f"wait as {found} says, which torch's OpenMP has read")


def _bfloat16() -> Finding:
    if fault := bfloat16_fault():
        return Finding("processor", "bfloat16", "announced by the CPU, but crashes", state="note", advice=fault)
    if native := native_bfloat16():
        found = f"by {', '.join(native)}: faster than float32 with --training.precision bfloat16"
        return Finding("processor", "bfloat16", found)
    advice = "slower than float32 here: keep --training.precision float32 on the CPU"
    return Finding("processor", "bfloat16", "not native on this CPU", advice=advice)


def usable_cores() -> int:
    """Cores that this process may use: its affinity, and the quota of its control group."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file():
        limit, _, period = quota.read_text().partition(" ")
        if limit != "max":
            cores = min(cores, max(1, round(int(limit) / int(period))))
    return cores


def _cpu_name() -> str:
    return cpu_info("model name") or platform.processor() or platform.machine()


def _storage() -> Iterator[Finding]:
    free = shutil.disk_usage(Path.cwd()).free / _GIB
    advice = "checkpoints of large models need several GiB: give --out a folder on a larger disk" if free < 5 else ""
    state = "note" if advice else "ok"
    yield Finding("storage", "disk", f"{free:.0f} GiB free in {Path.cwd()}", state=state, advice=advice)
    if _SHARED_MEMORY.is_dir():
        shared = shutil.disk_usage(_SHARED_MEMORY).total / _GIB
        advice = (
            "data workers pass batches through it: docker run --shm-size=8g (or --ipc=host), or --training.workers 0"
            if shared < 1
            else ""
        )
        state = "note" if advice else "ok"
        found = f"{shared:.1f} GiB at {_SHARED_MEMORY}"
        yield Finding("storage", "shared memory", found, state=state, advice=advice)


def _distributed() -> Iterator[Finding]:
    import torch.distributed as dist

    if not dist.is_available():
        advice = "this build of torch has no torch.distributed: training runs as one process"
        yield Finding("distributed", "torch.distributed", "absent", state="note", advice=advice)
        return
    backends = [
        name for name, there in (("gloo", dist.is_gloo_available()), ("nccl", dist.is_nccl_available())) if there
    ]
    found = f"{', '.join(backends)}: torchrun --nproc-per-node N -m tubelet train ..."
    yield Finding("distributed", "torch.distributed", found)


def _extras() -> Iterator[Finding]:
    for extra, package, what in (
        ("demo", "espeakng-loader", "speech in Talking Digits"),
        ("demo", "matplotlib", "pictures in reports"),
        ("wandb", "wandb", "logging to Weights & Biases"),
    ):
        version = _version(package)
        advice = "" if version else f'for {what}: pip install "tubelet[{extra}]"'
        yield Finding("extras", package, version or "not installed", advice=advice)
