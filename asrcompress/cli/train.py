"""Train an acoustic model, fine-tune a compressed one, or compress one while it is trained.

Options of the model and of the training are Hydra overrides of conf/train.yaml:
    asrcompress train --data data --lang data/lang_phone --out exp/dense model=tdnn criterion=lfmmi training.epochs=20
Compression during training is one more choice, of conf/schedule; structure and budget say what it works towards:
    asrcompress train --data data --lang data/lang_phone --out exp/small structure=svd size=0.25 schedule=truncate
Run again, it goes on from its last checkpoint.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder of prepared sets")
    parser.add_argument("--lang", type=Path, required=True)
    parser.add_argument("--init", type=Path, help="model file to start from; its own config counts")
    parser.add_argument("--config", type=Path, metavar="FILE",
                        help="JSON of a composed configuration, as a recipe leaves it, instead of overrides")
    parser.add_argument("--out", type=Path, required=True,
                        help="gets model.safetensors, train.json, checkpoints/, tensorboard/")
    parser.add_argument("overrides", nargs="*",
                        help="Hydra overrides: model=tdnnf criterion=lfmmi train_sets=[a,b] seed=1 ...")


def run(args: argparse.Namespace) -> None:
    from asrcompress.config import compose
    from asrcompress.errors import UserError
    from asrcompress.files import read_json
    from asrcompress.training.run import train

    if args.config and args.overrides:
        raise UserError(f"give either --config or overrides such as {args.overrides[0]}")
    config = read_json(args.config, "the configuration") if args.config else compose("train", args.overrides)
    train(config, args.data, args.lang, args.out, args.init)
