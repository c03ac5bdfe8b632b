"""Codebook fixtures. Both environments load this file: heavy imports stand inside the fixtures."""

from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with LibriSpeech/train-quick (2 speakers, 24 s), LibriSpeech/dev-quick (1 speaker, 8 s) and lm/."""
    from asrcompress.data.synthesis import synthesize

    out = tmp_path_factory.mktemp("tiny_corpus")
    synthesize(out, train_minutes=0.4, test_minutes=0.13, speakers=(2, 1))
    return out
