"""What the quickstart's synthetic corpus says, and how it sounds."""

from pathlib import Path

GRAMMAR = Path(__file__).with_name("grammar.txt")
LEXICON = Path(__file__).with_name("lexicon.txt")
