"""Pictures for people. Arrays and a path in, a PNG out; matplotlib is imported when drawing."""

from sslax.figures.embedding import embedding_map as embedding_map
from sslax.figures.grids import neighbours as neighbours
from sslax.figures.grids import task_grid as task_grid
from sslax.figures.progress import curves as curves

__all__ = ["curves", "embedding_map", "neighbours", "task_grid"]
