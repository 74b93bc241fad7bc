"""Scenes with exact geometry: rendered, layered, and one real stereo pair."""

from sslax.data.scenes.draw import random_intrinsics as random_intrinsics
from sslax.data.scenes.draw import random_motion as random_motion
from sslax.data.scenes.draw import random_scene as random_scene
from sslax.data.scenes.draw import trajectory as trajectory
from sslax.data.scenes.layered import layered as layered
from sslax.data.scenes.motorcycle import motorcycle as motorcycle
from sslax.data.scenes.render import Scene as Scene
from sslax.data.scenes.render import cast as cast
from sslax.data.scenes.render import motion as motion
from sslax.data.scenes.render import move as move
from sslax.data.scenes.render import render as render
from sslax.data.scenes.samples import Sample as Sample
from sslax.data.scenes.samples import flow as flow
from sslax.data.scenes.samples import sampler as sampler
from sslax.data.scenes.samples import stereo as stereo
from sslax.data.scenes.samples import video as video
from sslax.data.scenes.textures import Pyramid as Pyramid
from sslax.data.scenes.textures import pyramid as pyramid
from sslax.data.scenes.textures import textures as textures
