"""Speech from eSpeak NG, through the C library that the package `espeakng-loader` carries.

The library's state is global to the process, and what it says depends a little on what it said before (phases,
breath): for the same samples every time, say the same things in the same order in a fresh process.
"""

import ctypes
from dataclasses import dataclass

import numpy as np

from asrcompress.errors import UserError

# Constants of espeak-ng's speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_CHARS_UTF8 = 1
_PARAMETERS = {"rate": 1, "pitch": 3, "range": 4}
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


@dataclass(frozen=True)
class Voice:
    """Who speaks: `name` is espeak's LANGUAGE+VARIANT, `rate` words a minute, `pitch` and `range` 0 to 100."""

    name: str
    rate: int = 160
    pitch: int = 50
    range: int = 50


class Espeak:
    """The synthesiser; `sampling_rate` is in Hz. One per process."""

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError:
            raise UserError("the package espeakng-loader is missing; install it to synthesise speech") from None
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._chunks: list[np.ndarray] = []
        self._callback = _Callback(self._collect)  # kept here: the library holds a bare pointer to it
        data = espeakng_loader.get_data_path().encode()
        self.sampling_rate: int = self._library.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, 0, data, 0)
        if self.sampling_rate <= 0:
            raise UserError("eSpeak NG does not start; reinstall the package espeakng-loader")
        self._library.espeak_SetSynthCallback(self._callback)
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # else the clock seeds the breath of some voices

    def _collect(self, samples: "ctypes._Pointer[ctypes.c_short]", count: int, events: int) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0  # 1 would stop the synthesis

    def say(self, text: str, voice: Voice) -> np.ndarray:
        """`text` spoken by `voice`: (samples,) int16 at `sampling_rate`; UserError where there is no such voice."""
        if self._library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise UserError(f"eSpeak NG has no voice {voice.name}")
        for name, number in _PARAMETERS.items():
            self._library.espeak_SetParameter(number, getattr(voice, name), 0)
        self._chunks.clear()
        raw = text.encode() + b"\0"
        self._library.espeak_Synth(raw, ctypes.c_size_t(len(raw)), 0, 0, 0, _CHARS_UTF8, None, None)
        return np.concatenate(self._chunks) if self._chunks else np.zeros(0, np.int16)
