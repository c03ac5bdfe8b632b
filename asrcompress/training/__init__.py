"""The training program."""


def methods() -> dict[str, type]:
    """The options dataclass of a training, as the schema of conf/training."""
    from asrcompress.training.options import TrainingOptions

    return {"training": TrainingOptions}
