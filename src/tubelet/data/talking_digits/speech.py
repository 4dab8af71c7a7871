"""Spoken words from eSpeak NG, through ctypes and the library that the ``espeakng-loader`` package ships (GPL-3)."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

RATE = 16000  # samples per second, of what Speaker.say returns
_SPOKEN_RATE = 22050  # as eSpeak NG speaks
_ACCENTS = ("en-us", "en-gb-x-rp", "en-gb-scotland", "en-029")
# Timbres that sound nearly alike (Diogo and Henrique, aunty and linda, m7 and Nguyen) stand on one side. Those with
# breath (f2, f3, f5, Alicia, sandro, victor) never sound the same twice, and are left out.
_TIMBRES = {
    "train": (
        *("m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f4", "Alex", "Annie", "Denis", "Diogo", "Henrique"),
        *("Hugo", "Lee", "Mario", "Michael", "Nguyen", "adam", "antonio", "aunty", "benjamin", "boris", "caleb", "ed"),
        *("gustave", "ian", "iven", "iven2", "john", "kaukovalta", "klatt", "klatt4", "linda", "marcelo", "norbert"),
        *("paul", "quincy", "rob", "robert", "steph", "steph2", "travis", "zac"),
    ),
    "val": ("m8", "Andrea", "Andy", "Gene", "anika", "belinda", "grandpa", "max", "pablo", "shelby"),
}
VOICES: Mapping[str, tuple[str, ...]] = {
    split: tuple(f"{accent}+{timbre}" for timbre in timbres for accent in _ACCENTS)
    for split, timbres in _TIMBRES.items()
}


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """``rate`` in words per minute (eSpeak: 80 to 450), ``pitch`` from 0 to 99, ``gain``: the loudest sample."""

    word: str
    voice: str
    rate: int
    pitch: int
    gain: float


def check_espeak() -> None:
    """Raise if eSpeak NG is not installed."""
    if find_spec("espeakng_loader") is None:
        raise ModuleNotFoundError(
            "Talking Digits needs eSpeak NG for its voices, and the package espeakng-loader is not installed: "
            'pip install "tubelet[demo]"',
            name="espeakng_loader",
        )


class Speaker:
    """eSpeak NG in this process.

    The library has one state, and a process one library: what a voice with breath or flutter sounds like depends on all
    that was said since the process started. So the same utterances in the same order, from the start of a process, give
    the same samples.
    """

    _SYNCHRONOUS = 2  # samples are handed to a callback before Synth returns
    _UTF8 = 1
    _RATE, _PITCH = 1, 3
    _DONT_EXIT = 0x8000
    _Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

    def __init__(self) -> None:
        check_espeak()
        import espeakng_loader

        data = espeakng_loader.get_data_path()
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        rate = self._library.espeak_Initialize(self._SYNCHRONOUS, 0, data.encode(), self._DONT_EXIT)
        if rate != _SPOKEN_RATE:
            raise RuntimeError(f"eSpeak NG does not start with its data in {data}: it answers {rate}")
        self._pieces: list[NDArray[np.int16]] = []
        self._callback = self._Callback(self._receive)  # kept: the library only borrows it
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples: ctypes.Array[ctypes.c_short] | None, count: int, _events: int | None) -> int:
        if samples and count > 0:
            self._pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def say(self, utterance: Utterance) -> NDArray[np.float32]:
        """The samples (S,) in [-1, 1] at RATE."""
        if self._library.espeak_SetVoiceByName(utterance.voice.encode()) != 0:
            raise ValueError(f"eSpeak NG has no voice {utterance.voice!r}")
        self._library.espeak_SetParameter(self._RATE, utterance.rate, 0)
        self._library.espeak_SetParameter(self._PITCH, utterance.pitch, 0)
        text = utterance.word.encode() + b"\0"
        self._pieces.clear()
        status = self._library.espeak_Synth(text, len(text), 0, 1, 0, self._UTF8, None, None)
        if status != 0 or not self._pieces:
            raise RuntimeError(f"eSpeak NG said nothing (status {status}) for {utterance}")
        wave = _resample(np.concatenate(self._pieces))
        return wave * np.float32(utterance.gain / np.abs(wave).max())


def _resample(wave: NDArray[np.int16]) -> NDArray[np.float32]:
    """From _SPOKEN_RATE to RATE, by leaving out the frequencies that RATE cannot carry."""
    blocks = -(-len(wave) // 441)  # 441 samples become 320
    spectrum = np.fft.rfft(wave, blocks * 441)
    return np.fft.irfft(spectrum[: blocks * 160 + 1], blocks * 320).astype(np.float32)
