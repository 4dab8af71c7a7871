"""Damaged files, many files and large files: what reading them does to the process that reads."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random

import av
import numpy as np
import torch
from claims import Claim, all_of, at_most, none_of
from odd_files import LARGE, damaged, small_files
from watched import alone, memory, watched

from tubelet.cards import ClassCard
from tubelet.data.augment import Augmentation
from tubelet.data.manifest import Record
from tubelet.data.readers import Files, reader_of
from tubelet.data.views import Views
from tubelet.data.windows import plan_windows
from tubelet.inference.predictor import Predictor
from tubelet.inference.scoring import view_logits
from tubelet.media.audio import read_audio
from tubelet.media.errors import MediaError
from tubelet.media.images import read_image
from tubelet.media.info import probe
from tubelet.media.video import open_video
from tubelet.models.polyvit import Modality, PolyViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import ImageSpec, InputSpec, SpectrogramSpec, TextSpec, VideoSpec, WaveformSpec
from tubelet.weights.loaded import LoadedModel, build_model

SMALL: dict[str, InputSpec] = {
    "image": ImageSpec(size=(32, 32), short_side=32),
    "video": VideoSpec(frames=4, stride=1, size=(32, 32), short_side=32),
    "spectrogram": SpectrogramSpec(frames=24, bins=16),
    "waveform": WaveformSpec(samples=4000, rate=16_000),
    "text": TextSpec(vocabulary="<pad> <unk>"),
}
_WINDOWS = 20  # of a timeline that are read
_NO_TIMELINE = "has no timeline"


def mutated(folder: Path, count: int, seed: int, workers: int) -> list[Claim]:
    """``count`` damaged files of many formats, each probed and read as every kind of input in every way."""
    originals = small_files(folder)
    work = folder / "damaged"
    work.mkdir()
    numbers = list(range(count))
    outcomes = watched(partial(_read_damaged, originals, seed, work), numbers, workers)

    def named(number: int, said: str) -> str:
        path = damaged(originals, number, seed, folder)  # made again, to be looked at
        return f"{path.name}: {said}"

    asked = list(zip(numbers, outcomes, strict=True))
    part, kinds = "mutated", len(originals)
    signals = [named(n, o.died) for n, o in asked if o.died not in ("", "hangs")]
    hangs = [named(n, "hangs") for n, o in asked if o.died == "hangs"]
    errors = [named(n, line) for n, o in asked for line in (o.value or [o.error] * bool(o.error))]
    highest, number = max((o.peak, n) for n, o in asked)
    return [
        none_of(part, f"files of {kinds} formats that end the process", count, signals),
        none_of(part, "files that take over 10 s", count, hangs),
        none_of(part, "exceptions that are no MediaError", count, errors),
        at_most(part, "peak memory", highest, 1024, "MB", f" ({number}{originals[number % kinds].suffix})"),
    ]


def _read_damaged(originals: list[Path], seed: int, work: Path, number: int) -> list[str]:
    path = damaged(originals, number, seed, work)
    try:
        return read_every_way(str(path))
    finally:
        path.unlink()


def read_every_way(path: str) -> list[str]:
    """Probe and read a file as every kind of input; what was raised that is no MediaError, by how it was read."""
    found: list[str] = []

    def tried(how: str, read: Callable[[], object]) -> None:
        try:
            read()
        except MediaError:
            return
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            found.append(f"{how}: {type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})")

    tried("probe", partial(probe, path))
    for kind, spec in SMALL.items():
        tried(f"train {kind}", partial(_train, path, spec))
        tried(f"views {kind}", partial(reader_of(spec).views, Files().of(Record(path)), Views(clips=2)))
        if reader_of(spec).timed and kind != "text":
            tried(f"timeline {kind}", partial(_timeline, path, spec))
    return found


def _train(path: str, spec: InputSpec) -> None:
    reader_of(spec).train(Files().of(Record(path)), Augmentation(), Random(0))


def _timeline(path: str, spec: InputSpec) -> None:
    info, reader = probe(path), reader_of(spec)
    if reader.given_by(info):
        plan = plan_windows(reader.grid(info.fps), info.duration)
        record = Record(path, duration=info.duration, fps=info.fps)
        for _ in islice(reader.windows(record, plan), _WINDOWS):
            pass


def opens(folder: Path, count: int, seed: int) -> list[Claim]:
    """``count`` opens of good and broken files in one process: by how much its memory grows."""
    outcome = alone(partial(_open_many, folder, seed), count)
    if outcome.value is None:
        return [Claim("opens", "opens in one process", outcome.error or outcome.died, "", False)]
    return [at_most("opens", f"1,000 opens: {kind}", grown, 2, "MB") for kind, grown in outcome.value.items()]


def _open_many(folder: Path, seed: int, count: int) -> dict[str, float]:
    """MB per 1,000 opens, by what is opened."""
    originals = small_files(folder)
    of = {path.suffix: str(path) for path in originals}
    broken = [str(damaged(originals, number, seed, folder)) for number in range(3 * len(originals))]
    films, sounds, pictures = (
        [of[suffix] for suffix in suffixes]
        for suffixes in (
            (".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts", ".gif"),
            (".wav", ".ogg", ".flac", ".m4a", ".mp3", ".mp4"),
            (".jpg", ".png", ".webp", ".tiff"),
        )
    )

    def frames(path: str) -> None:
        with open_video(path) as video:
            video.frames_at([0.0, 0.5])

    def either(path: str) -> None:
        for read in (probe, frames):
            with suppress(Exception):
                read(path)

    ways: dict[str, tuple[Callable[[str], object], list[str]]] = {
        "frames": (frames, films),
        "probe": (probe, [*films, *sounds, *pictures]),
        "sound": (lambda path: read_audio(path, 0.0, 0.5, 16_000), sounds),
        "pictures": (read_image, pictures),
        "broken files": (either, broken),
    }
    return {kind: _growth(open_, files, count // len(ways)) for kind, (open_, files) in ways.items()}


def _growth(open_: Callable[[str], object], files: list[str], count: int) -> float:
    """MB per 1,000 opens: the slope over the second half, when caches and buffers are full."""
    seen: list[tuple[int, float]] = []
    for i in range(count):
        open_(files[i % len(files)])
        if i >= count // 2 and i % max(1, count // 100) == 0:
            seen.append((i, memory("VmRSS")))
    return float(np.polyfit(*np.array(seen).T, 1)[0]) * 1000


def large(folder: Path) -> list[Claim]:
    """Single files that are large in one way: the most memory that predicting, training and a timeline take of each."""
    claims: list[Claim] = []
    for name, make in LARGE.items():
        path = folder / name
        alone(make, path)
        ways = {"predict": _predict, "train": _train_on, "timeline": _over_time}
        said = {way: alone(look, str(path)) for way, look in ways.items()}
        said = {way: outcome for way, outcome in said.items() if outcome.value != _NO_TIMELINE}
        failures = [f"{way}: {o.error or o.died}" for way, o in said.items() if o.error or o.died]
        refused = {o.value for o in said.values() if isinstance(o.value, str)}
        times = ", ".join(f"{way} {o.seconds:.1f} s" for way, o in said.items())
        peak = max(o.peak for o in said.values())
        claims.append(at_most("large", name, peak, 1024, "MB", f"; {times}{'; refused' * bool(refused)}"))
        if failures:
            claims.append(all_of("large", f"{name} is read, or refused", len(said), failures))
        if path.suffix == ".wav" and not failures:
            pass_ = alone(_one_pass, str(path))
            if pass_.error or pass_.died:
                raise RuntimeError(f"the pass that a timeline is compared with: {pass_.error or pass_.died}")
            ratio = said["timeline"].seconds / pass_.seconds
            claims.append(at_most("large", "its timeline, in passes over the sound", ratio, 2, "passes"))
        path.unlink()
    return claims


def tiny_model() -> Predictor:
    """A tiny model of pictures, videos and sounds of the usual sizes."""
    modalities = {
        "image": Modality(spec=ImageSpec(), patch=(1, 56, 56)),
        "video": Modality(spec=VideoSpec(), patch=(8, 56, 56)),
        "audio": Modality(spec=SpectrogramSpec(), patch=(1, 40, 32)),
    }
    config = PolyViTConfig(backbone=TransformerConfig(width=32, depth=1, heads=2, mlp=64), modalities=modalities)
    cards = {name: ClassCard(classes=("a", "b"), inputs=(name,)) for name in modalities}
    torch.manual_seed(0)
    return Predictor(LoadedModel(build_model(config, cards), config, cards), torch.device("cpu")).eval()


def _predict(path: str) -> str | None:
    try:
        tiny_model().predict(path)
    except MediaError as error:
        return str(error)
    return None


def _train_on(path: str) -> str | None:
    try:
        info = probe(path)
        (spec,) = (spec for spec in tiny_model().encoder.inputs.values() if info.kind == reader_of(spec).kinds[0])
        _train(path, spec)
    except MediaError as error:
        return str(error)
    return None


def _over_time(path: str) -> str | None:
    """Every window of sound; of a video, 100 windows or fewer."""
    try:
        info = probe(path)
        if info.kind == "image":
            return _NO_TIMELINE
        for _ in tiny_model().segments(path, stride=max(1.0, info.duration / 100) if info.kind == "video" else 0.0):
            pass
    except MediaError as error:
        return str(error)
    return None


def _one_pass(path: str) -> None:
    """What a timeline of a sound must do at least: decode it once, and answer its windows."""
    model = tiny_model()
    spec = model.encoder.inputs["audio"]
    reader, length = reader_of(spec), round(spec.seconds * spec.rate)

    def windows() -> Iterator[dict[str, torch.Tensor]]:
        kept = np.zeros(0, np.float32)
        with av.open(path) as container:
            for frame in container.decode(audio=0):
                kept = np.concatenate([kept, frame.to_ndarray()[0].astype(np.float32) / 2**15])
                if len(kept) >= spec.samples:
                    yield {"audio": reader.heard(torch.from_numpy(kept[None, : spec.samples]))}
                    kept = kept[length:]

    with torch.no_grad():
        for _ in view_logits(model, "audio", windows(), views_per_forward=12):
            pass
