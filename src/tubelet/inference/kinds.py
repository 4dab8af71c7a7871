"""Which files give which inputs, and what is said of one that does not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tubelet.data.readers import reader_of
from tubelet.data.views import Views
from tubelet.media.errors import MediaError
from tubelet.media.info import MediaInfo
from tubelet.specs import InputSpec

Specs = Mapping[str, InputSpec]
_CLIPS = 4  # of a video or a sound, where nothing says otherwise


def gives(info: MediaInfo, specs: Specs) -> bool:
    """Whether a file has everything that ``specs`` want: a video's sound track counts as sound."""
    return all(reader_of(spec).given_by(info) for spec in specs.values())


def only_sound(specs: Specs) -> bool:
    return all(spec.modality == "audio" for spec in specs.values())


def fitting_views(views: Views | str, specs: Specs) -> Views:
    """``views``, as far as the inputs have them: an image is one clip, sound and whole pictures have no crops.

    "4x1" if empty.
    """
    if isinstance(views, str):
        views = Views.parse(views) if views else Views(clips=_CLIPS)
    readers = [reader_of(spec) for spec in specs.values()]
    return Views(
        clips=views.clips if all(reader.timed for reader in readers) else 1,
        crops=views.crops if any(reader.cropped for reader in readers) else 1,
    )


def misfit(info: MediaInfo, who: str, wanted: Iterable[Specs]) -> MediaError:
    """The error of a file that gives none of the sets of inputs that ``who`` takes."""
    sets = list(wanted)
    senses = {spec.modality for specs in sets for spec in specs.values()}
    readers = [reader_of(spec) for specs in sets for spec in specs.values() if spec.modality == "text"]
    untold = any(not reader.given_by(info) for reader in readers)
    lacks = ["a sound track"] * ("audio" in senses and not info.audio_channels) + ["captions"] * untold
    without = f" without {' or '.join(lacks)}" if lacks else ""
    what = {"image": "an image", "video": f"a video{without}", "audio": "sound alone"}
    takes = dict.fromkeys(" with ".join(reader_of(spec).many for spec in specs.values()) for specs in sets)
    give = dict.fromkeys(one for specs in sets for one in _files(specs))
    return MediaError(
        info.path, None, f"is {what[info.kind]}, but {who} takes {' or '.join(takes)}; give it {' or '.join(give)}"
    )


def _files(specs: Specs) -> list[str]:
    """The kinds of files that give them all, in words; those of the first input, where no kind does."""
    first, *others = (reader_of(spec).kinds for spec in specs.values())
    kinds = [kind for kind in first if all(kind in other for other in others)] or first
    senses = {spec.modality for spec in specs.values()}
    has = ["a sound track"] * ("audio" in senses) + ["captions"] * ("text" in senses)
    video = f"a video with {' and '.join(has)}" if has else "a video"
    words = {"image": "an image", "video": video, "audio": f"a sound file{' with captions' * ('text' in senses)}"}
    return [words[kind] for kind in kinds]
