"""Test-time views: which clips and which spatial crops of a video are scored."""

from __future__ import annotations

from dataclasses import dataclass

_MOST = 1000  # all of them are in memory at once


@dataclass(frozen=True)
class Views:
    """``clips`` clips spread evenly over the video, times ``crops`` spatial crops of each; written "4x3".

    One clip is the middle one. One crop is the center; more are spread evenly along the longer side, from its start to
    its end: three are left, center and right of a wide picture, or top, center and bottom of a tall one.
    """

    clips: int = 1
    crops: int = 1

    def __post_init__(self) -> None:
        if self.clips < 1:
            raise ValueError(f"views need at least 1 clip, not {self.clips}")
        if self.crops < 1:
            raise ValueError(f"views need at least 1 crop, not {self.crops}")
        for name, count in (("clips", self.clips), ("crops", self.crops)):
            if count > _MOST:
                raise ValueError(f"views of {count:,} {name} are too many: at most {_MOST:,}")

    def __len__(self) -> int:
        return self.clips * self.crops

    def __str__(self) -> str:
        return f"{self.clips}x{self.crops}"

    @classmethod
    def parse(cls, text: str) -> Views:
        """The views that ``text`` writes, such as "4x3"."""
        clips, _, crops = text.partition("x")
        if not (clips.isdecimal() and crops.isdecimal()):
            raise ValueError(f"views {text!r} must be clips x crops, such as 4x3")
        return cls(int(clips), int(crops))
