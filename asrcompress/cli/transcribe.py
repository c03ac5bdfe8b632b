"""Transcribe audio files with a model: a line `NAME words ...` for each, in the order given.

    asrcompress transcribe whisper.packed a.wav b.flac
    asrcompress transcribe hf:openai/whisper-base a.wav --language de
    asrcompress transcribe model.packed --lang data/lang_phone --graph data/graph_phone/tgsmall/HLG.npz a.wav
A model of ours whose tokens are phones says phones without --graph. Audio of any sampling rate, the first channel.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a packed file, a model file, or hf: and a folder or name of Hugging Face's")
    parser.add_argument("audio", nargs="+", type=Path, help="WAV or FLAC files")
    add_recogniser(parser)


def add_recogniser(parser: argparse.ArgumentParser) -> None:
    """The options of recognisers. What is not given is left to the recogniser."""
    parser.add_argument("--lang", type=Path, help="of a model of ours: its lang folder")
    parser.add_argument("--graph", type=Path, metavar="HLG.npz", help="of a model of ours: the graph")
    parser.add_argument("--acoustic-scale", type=float, metavar="S", help="of the search over the graph (default: 1)")
    parser.add_argument("--language", help="of Whisper of many languages (default: en)")
    parser.add_argument("--beam", type=int, help="width of Whisper's search (default: 1, greedy)")


def recogniser_options(args: argparse.Namespace) -> dict[str, object]:
    """What was given of them, for `recognisers.load`."""
    names = ("lang", "graph", "acoustic_scale", "language", "beam")
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def run(args: argparse.Namespace) -> None:
    from asrcompress import recognisers
    from asrcompress.runtimes.base import waves_of_files

    waves = list(waves_of_files(args.audio))
    recogniser = recognisers.load(args.model, **recogniser_options(args))
    for path, text in zip(args.audio, recogniser.transcribe(waves).values(), strict=True):
        print(f"{path.stem} {text}")
