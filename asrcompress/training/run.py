"""A training as `conf/train.yaml` describes it: prepared sets and a lang folder in, a model file out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only

from asrcompress import compression, models
from asrcompress.compression import save_model
from asrcompress.data.utterances import Targets, Utterances, load_cuts
from asrcompress.errors import UserError
from asrcompress.lang import lexicon as lexicons
from asrcompress.options import make, require
from asrcompress.training import criteria, schedules
from asrcompress.training.options import TrainingOptions
from asrcompress.training.train import fit


def train(config: Mapping[str, Any], data: Path, lang: Path, out: Path, init: Path | None = None) -> None:
    """Train and write `out/model.safetensors`, train.json, checkpoints/ and tensorboard/.

    `config` is what `config.compose("train", ...)` gives. `init` is a model file to start from; its own config counts,
    not config["model"]. Run again, a training that was cut off goes on from its last checkpoint. Errors: UserError.
    """
    training = make(TrainingOptions, config["training"], "training")
    symbols, encode = lexicons.of_lang(lang)
    utterances = Utterances(data, config["train_sets"], encode, training.max_duration)
    dev = load_cuts(data, [config["dev_set"]], encode)
    torch.manual_seed(config["seed"])
    model: Any = compression.load(init) if init else models.build({**config["model"], "vocab": len(symbols)})
    if init and config["schedule"]["name"] == "scratch":
        raise UserError(f"schedule=scratch starts from random numbers, so {init} would be lost; choose another "
                        "schedule, or leave --init away")
    require(model.config["vocab"] == len(symbols), f"{init} has {model.config['vocab']} tokens, and {lang} has "
            f"{len(symbols)}; give the lang folder that it was trained with")
    features, stored = model.config.get("features", model.Options.features), next(iter(dev)).num_features
    require(features == stored, f"the model takes {features} features a frame, and {data} has {stored}; prepare the "
            "data again, or choose model.features")
    callbacks = schedules.build(config, training)
    for callback in callbacks:
        callback.begin(model)
    criterion = criteria.build(**config["criterion"], vocab=len(symbols), targets=Targets(utterances, encode))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{out}: {parameters / 1e6:.2f} M parameters, {len(utterances)} cuts", flush=True)
    trained = fit(model, criterion, utterances, dev, encode, training, config["seed"], out, callbacks)
    rank_zero_only(save_model)(out / "model.safetensors", trained)
