"""The errors of media files."""

from __future__ import annotations


class MediaError(Exception):
    """A file that cannot be read, or not at this time.

    ``path``: the file. ``time``: seconds on its timeline, None where the whole file is meant. ``reason``: what happened
    and what to do next. It pickles, so that workers can return it as a value.
    """

    def __init__(self, path: str, time: float | None, reason: str) -> None:
        super().__init__(path, time, reason)
        self.path, self.time, self.reason = path, time, reason

    def __str__(self) -> str:
        place = self.path if self.time is None else f"{self.path} at {self.time:.3f} s"
        return f"{place}: {self.reason}"


class NoTrackError(MediaError):
    """A file that can be read, but has no pictures, sound or captions where they are needed; or not at that time."""
