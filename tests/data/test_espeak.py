import subprocess
import sys
import time

import pytest

from asrcompress.data.espeak import Espeak, Voice
from asrcompress.errors import UserError

PROGRAM = """
import hashlib
from asrcompress.data.espeak import Espeak, Voice
espeak = Espeak()
for text in ("one fine day", "two apples"):
    print(hashlib.sha256(espeak.say(text, Voice("en-us+f2", rate=170))).hexdigest())
"""


@pytest.fixture(scope="module")
def espeak() -> Espeak:
    return Espeak()


def test_longer_sentences_and_lower_rates_take_longer(espeak: Espeak) -> None:
    short = len(espeak.say("one", Voice("en-us+m1")))
    long = len(espeak.say("one two three four five six seven", Voice("en-us+m1")))
    slow = len(espeak.say("one two three four five six seven", Voice("en-us+m1", rate=100)))
    assert 0 < short < long < slow
    assert 0.3 < short / espeak.sampling_rate < 2


def test_voices_differ(espeak: Espeak) -> None:
    first, second = (espeak.say("one fine day", Voice(name)) for name in ("en-us+m1", "en-us+f4"))
    assert first.tolist() != second.tolist()


def test_unknown_voice(espeak: Espeak) -> None:
    with pytest.raises(UserError, match="no voice xx-nowhere"):
        espeak.say("one", Voice("xx-nowhere"))


def test_fresh_processes_say_the_same() -> None:
    first = subprocess.check_output([sys.executable, "-c", PROGRAM]).split()
    time.sleep(1.1)  # the library's own seed is the clock's second
    second = subprocess.check_output([sys.executable, "-c", PROGRAM]).split()
    assert first == second
    assert len(set(first)) == 2
