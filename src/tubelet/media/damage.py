"""Which decoded frames can be trusted, since FFmpeg conceals damage and goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

LONGEST_REORDER = 16  # frames, in H.264 and H.265


class DamageTracker:
    """Holds frames back until all frames that they may refer to are known, and says which ones are intact.

    A frame is spoiled by damage to itself or to anything decoded before it, back to the last intact keyframe on screen.
    FFmpeg reports damage when a frame comes out, which with B-frames is later than the frames that refer to it.
    """

    def __init__(self, threads: int) -> None:
        self._late = threads - 1  # packets by which frame threads report errors late
        self._decoded = 0
        self._expected: dict[int, int] = {}  # pts -> place in decoding order, of packets without a frame so far
        self._damaged: list[int] = []  # places in decoding order
        self._held: deque[tuple[int, VideoFrame]] = deque()

    def expect(self, packet: Packet[VideoStream]) -> None:
        """Call this before decoding a packet."""
        self._decoded += 1
        if packet.pts is not None and not packet.is_discard:
            self._expected[packet.pts] = self._decoded
            if len(self._expected) > LONGEST_REORDER + self._late:
                del self._expected[next(iter(self._expected))]  # a frame that is never shown

    def failed(self, packet: Packet[VideoStream]) -> None:
        """Call this if that packet cannot be decoded."""
        self._damaged.append(self._decoded - self._late)
        if packet.pts is not None:
            self._expected.pop(packet.pts, None)

    def judge(self, pictures: Iterable[VideoFrame]) -> Iterator[tuple[VideoFrame, bool]]:
        """Takes frames as they come out of the decoder; returns those that can be judged by now, in order."""
        for picture in pictures:
            place = self._decoded if picture.pts is None else self._expected.pop(picture.pts, self._decoded)
            if picture.is_corrupt:
                self._damaged.append(place)
            self._held.append((place, picture))
        while self._held and next(iter(self._expected.values()), self._held[0][0]) >= self._held[0][0]:
            yield self._release()

    def rest(self) -> Iterator[tuple[VideoFrame, bool]]:
        """The frames that are still held at the end of the file."""
        while self._held:
            yield self._release()

    def _release(self) -> tuple[VideoFrame, bool]:
        place, picture = self._held.popleft()
        if picture.key_frame and place not in self._damaged:
            self._damaged = [other for other in self._damaged if other > place]
        return picture, not any(other <= place for other in self._damaged)
