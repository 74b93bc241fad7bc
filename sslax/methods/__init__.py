"""The methods, one file each; a row here makes one selectable as `config.method`."""

from sslax.methods import simclr

METHODS = {
    "simclr": simclr.build,
}
