"""sslax: self-supervised vision in JAX."""

from sslax import augment, losses, ops

__all__ = ["augment", "losses", "ops"]
__version__ = "0.1.0"
