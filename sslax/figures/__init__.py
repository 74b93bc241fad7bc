"""Figures: arrays and a path in, a PNG out. Matplotlib is imported only when drawing."""

from sslax.figures.embedding import embedding_map as embedding_map
from sslax.figures.embedding import project as project
from sslax.figures.grids import neighbors as neighbors
from sslax.figures.grids import task_grid as task_grid
from sslax.figures.maps import colorize as colorize
from sslax.figures.maps import depth_colors as depth_colors
from sslax.figures.maps import disparity_colors as disparity_colors
from sslax.figures.maps import flow_colors as flow_colors
from sslax.figures.maps import flow_legend as flow_legend
from sslax.figures.maps import trajectories as trajectories
from sslax.figures.patches import patch_colors as patch_colors
from sslax.figures.patches import patch_features as patch_features
from sslax.figures.progress import curves as curves

__all__ = [
    "colorize",
    "curves",
    "depth_colors",
    "disparity_colors",
    "embedding_map",
    "flow_colors",
    "flow_legend",
    "neighbors",
    "patch_colors",
    "patch_features",
    "project",
    "task_grid",
    "trajectories",
]
