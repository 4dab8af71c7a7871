"""Which files give which inputs, and what is said of one that does not."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from tubelet.data.views import Views, has_crops
from tubelet.media.errors import MediaError
from tubelet.media.info import MediaInfo
from tubelet.specs import ImageSpec, InputSpec, SpectrogramSpec, VideoSpec

Specs = Mapping[str, InputSpec]
_CLIPS = 4  # of a video or a sound, where nothing says otherwise


def gives(info: MediaInfo, specs: Specs) -> bool:
    """Whether a file has everything that ``specs`` want: a video's sound track counts as sound."""
    return all(_gives(info, spec) for spec in specs.values())


def _gives(info: MediaInfo, spec: InputSpec) -> bool:
    if isinstance(spec, SpectrogramSpec):
        return info.audio_channels > 0
    return info.kind == ("video" if isinstance(spec, VideoSpec) else "image")


def only_sound(specs: Specs) -> bool:
    return all(isinstance(spec, SpectrogramSpec) for spec in specs.values())


def fitting_views(views: Views | str, specs: Specs) -> Views:
    """``views``, as far as the inputs have them: an image is one clip, sound and whole pictures have no crops.

    "4x1" if empty.
    """
    if isinstance(views, str):
        views = Views.parse(views) if views else Views(clips=_CLIPS)
    return Views(
        clips=1 if all(isinstance(spec, ImageSpec) for spec in specs.values()) else views.clips,
        crops=views.crops if any(has_crops(spec) for spec in specs.values()) else 1,
    )


def misfit(info: MediaInfo, who: str, wanted: Iterable[Specs]) -> MediaError:
    """The error of a file that gives none of the sets of inputs that ``who`` takes."""
    sets = list(wanted)
    listens = any(isinstance(spec, SpectrogramSpec) for specs in sets for spec in specs.values())
    video = "a video without a sound track" if listens and not info.audio_channels else "a video"
    what = {"image": "an image", "video": video, "audio": "sound alone"}
    takes = dict.fromkeys(" with ".join(_many(spec) for spec in specs.values()) for specs in sets)
    give = dict.fromkeys(one for specs in sets for one in _one(specs.values()))
    return MediaError(
        info.path, None, f"is {what[info.kind]}, but {who} takes {' or '.join(takes)}; give it {' or '.join(give)}"
    )


def _many(spec: InputSpec) -> str:
    match spec:
        case ImageSpec():
            return "images"
        case VideoSpec():
            return "videos"
        case SpectrogramSpec():
            return "sound"


def _one(specs: Collection[InputSpec]) -> tuple[str, ...]:
    """The kinds of files that give them all."""
    if any(isinstance(spec, ImageSpec) for spec in specs):
        return ("an image",)
    film = "a video with a sound track" if any(isinstance(spec, SpectrogramSpec) for spec in specs) else "a video"
    return (film,) if any(isinstance(spec, VideoSpec) for spec in specs) else ("a sound file", film)
