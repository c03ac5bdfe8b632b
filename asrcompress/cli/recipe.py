"""Run stages of a recipe in the current folder, as the run.sh of recipes/ do.

    asrcompress recipe train-dense --corpus ~/corpora --model tdnn --epochs 8
    asrcompress recipe compress --corpus ~/corpora --methods "svd svd,data_aware=true" --sizes "0.5 0.25"
    asrcompress recipe compress decode --corpus ~/corpora --launcher ray --jobs 8
    asrcompress recipe compress --corpus ~/corpora --only svd-0.25
The options are those that `recipes/librispeech/run.sh --help` explains. What is done already is skipped; where it was
done with other options, the stage stops and says which. --redo true makes it again.
"""

import argparse

STAGES = ("download", "prepare", "lang", "graph", "train-dense", "train-controls", "compress", "decode",
          "export-devices", "decode-devices", "report")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Stages, and an option for each of the settings."""
    from asrcompress.recipe import settings

    parser.add_argument("stages", choices=STAGES, nargs="+")
    parser.add_argument("--only", metavar="NAME", help="one model of the stage: what a job of a sweep does")
    parser.add_argument("--part", metavar="I", type=int, help="with --only: of --decode-parts; 0 chooses scales")
    for key, default in settings.defaults().items():
        parser.add_argument(settings.option(key), metavar="VALUE", default=argparse.SUPPRESS,
                            help=f"(default: {settings.as_text(default) or 'empty'})".replace("%", "%%"))


def run(args: argparse.Namespace) -> None:
    """Check the settings and run the stage. Errors: UserError."""
    from asrcompress.recipe import settings, stages

    known = settings.defaults()
    stages.run(args.stages, settings.from_words({key: text for key, text in vars(args).items() if key in known}),
               args.only, args.part)
