"""Train an acoustic model, fine-tune a compressed one, or compress one while it is trained.

Options of the model and of the training are Hydra overrides of conf/train.yaml:
    asrcompress train --data data --lang data/lang_phone --out exp/dense model=tdnn criterion=lfmmi training.epochs=20
Compression during training is one more choice, of conf/schedule; structure and budget say what it works towards:
    asrcompress train --data data --lang data/lang_phone --out exp/small structure=svd budget.size=0.25 schedule=truncate
Run again, it goes on from its last checkpoint.
"""

import argparse
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder of prepared sets")
    parser.add_argument("--lang", type=Path, required=True)
    parser.add_argument("--init", type=Path, help="model file to start from; its own config counts")
    parser.add_argument("--out", type=Path, required=True,
                        help="gets model.safetensors, train.json, checkpoints/, tensorboard/")
    parser.add_argument("overrides", nargs="*",
                        help="Hydra overrides: model=tdnnf criterion=lfmmi train_sets=[a,b] seed=1 ...")


def run(args: argparse.Namespace) -> None:
    import torch

    from asrcompress import compression, models
    from asrcompress.config import compose
    from asrcompress.data.batches import load_cuts
    from asrcompress.errors import UserError
    from asrcompress.lang import lexicon as lexicons
    from asrcompress.lang.tokens import read_symbols
    from asrcompress.training import criteria, schedules
    from asrcompress.training.train import fit

    config = compose("train", args.overrides)
    training = {**config["training"], "seed": config["seed"]}
    symbols = read_symbols(args.lang / "tokens.txt")
    encode = lexicons.Encoder(lexicons.read(args.lang / "lexicon.txt"), symbols)
    train = load_cuts(args.data, config["train_sets"], encode, training["max_duration"])
    dev = load_cuts(args.data, [config["dev_set"]], encode)
    torch.manual_seed(config["seed"])
    model: Any = compression.load(args.init) if args.init else models.build({**config["model"], "vocab": len(symbols)})
    transcripts = {cut.recording_id: encode(cut.supervisions[0].text) for cut in train}
    if args.init and config["schedule"]["name"] == "scratch":
        raise UserError(f"schedule=scratch starts from random numbers, so {args.init} would be lost; choose truncate or "
                        "trace_norm, or leave --init away")
    callbacks = schedules.callbacks(config, training)
    for callback in callbacks:
        callback.begin(model)
    criterion = criteria.build(**config["criterion"], vocab=len(symbols), targets=transcripts.values())
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{args.out}: {parameters / 1e6:.2f} M parameters, {len(train)} cuts", flush=True)
    models.save(args.out / "model.safetensors", fit(model, criterion, train, dev, encode, training, args.out,
                                                     callbacks))
