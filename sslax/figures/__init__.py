"""Pictures for people. Arrays and a path in, a PNG out; matplotlib is imported when drawing."""

from sslax.figures.embedding import embedding_map as embedding_map
from sslax.figures.grids import neighbours as neighbours
from sslax.figures.grids import task_grid as task_grid
from sslax.figures.maps import depth_colours as depth_colours
from sslax.figures.maps import disparity_colours as disparity_colours
from sslax.figures.maps import flow_colours as flow_colours
from sslax.figures.maps import flow_legend as flow_legend
from sslax.figures.maps import trajectories as trajectories
from sslax.figures.progress import curves as curves

__all__ = [
    "curves",
    "depth_colours",
    "disparity_colours",
    "embedding_map",
    "flow_colours",
    "flow_legend",
    "neighbours",
    "task_grid",
    "trajectories",
]
