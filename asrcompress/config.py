"""Hydra configs, found in the clone's `conf/` or, where the package was installed from a wheel, beside this file."""

from collections.abc import Sequence
from pathlib import Path

from asrcompress.errors import UserError

HERE = Path(__file__).resolve().parent


def folder() -> Path:
    clone = HERE.parent / "conf"
    return clone if clone.is_dir() else HERE / "conf"


def compose(name: str, overrides: Sequence[str] = ()) -> dict:
    """`conf/<name>.yaml` with `group=choice` and `key=value` overrides, resolved to plain dicts and lists."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_dir(str(folder()), version_base="1.3"):
            config = OmegaConf.to_container(hydra_compose(name, list(overrides)), resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # hydra raises ValueError for model=3
        message = " ".join(str(error).split())
        raise UserError(f"the configuration {name} with [{' '.join(overrides)}] is not valid: {message}") from None
    assert isinstance(config, dict)
    return config
