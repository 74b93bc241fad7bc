"""sslax: self-supervised vision in JAX.

`from sslax import losses, ops, augment` needs JAX alone; Flax and the rest of the training stack
are imported when a run is made or loaded.
"""

from typing import TYPE_CHECKING, Any

from sslax import augment, errors, losses, ops

if TYPE_CHECKING:
    from sslax.inference.encoder import Trained
    from sslax.models import LoadedEncoder

__all__ = ["augment", "load", "load_encoder", "losses", "ops"]
__version__ = "0.2.0.dev0"


def load(workdir: str, **options: Any) -> "Trained":
    """What the run in `workdir` trained: `encoder(images) -> features`, or an estimator of depth
    or flow, `estimator(images) -> maps`.

    See `sslax.tasks.loading.load`.
    """
    errors.require("train")
    from sslax.tasks import loading

    return loading.load(workdir, **options)


def load_encoder(source: str) -> "LoadedEncoder":
    """An encoder from a file or a run's folder, as a Flax module with its variables.

    See `sslax.models.load_encoder`.
    """
    errors.require("train")
    from sslax import models

    return models.load_encoder(source)
