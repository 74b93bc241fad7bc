"""Networks, the only package with Flax modules. Everything else uses `sslax.types.Model`."""

from sslax.models.build import (
    FLOW_NETWORKS,
    MODELS,
    build_depth_decoder,
    build_encoder,
    build_flow_network,
    build_pose_network,
    build_projector,
    defaults,
    encoder_module,
    feature_encoder,
    is_vit,
)
from sslax.models.conv import Conv, conv2d
from sslax.models.correlation import correlation_lookup, correlation_pyramid, cost_volume, lookup
from sslax.models.decoders import (
    ColorDecoder,
    ContextDecoder,
    Data2VecDecoder,
    Discriminator,
    MAEDecoder,
    PixelHead,
    as_map,
)
from sslax.models.depth import (
    DepthDecoder,
    DispNetDecoder,
    DispNetEncoder,
    UpConv,
)
from sslax.models.heads import Classifier, DINOHead, Projector, Prototypes, TileClassifier
from sslax.models.jepa import JEPAPredictor
from sslax.models.linen import Normalized, from_linen, parameter_count, parameter_overview
from sslax.models.pose import PoseCNN, PoseCorrelation, PoseDecoder
from sslax.models.pretrained import (
    PREPROCESSING,
    Description,
    LoadedEncoder,
    PretrainedEncoder,
    lightness,
    load_encoder,
    preprocessing_name,
    save_encoder,
    standardized,
)
from sslax.models.pwc import PWCNet, upsample_flow
from sslax.models.raft import RAFT, load_torchvision_raft
from sslax.models.resnet import ResNet
from sslax.models.vit import (
    ViT,
    patchify,
    resize_positions,
    rope_angles,
    sincos_positions,
    unpatchify,
)
from sslax.models.weights import (
    fit_weights,
    load_torchvision_resnet,
    read_variables,
    read_weights,
    save_weights,
)

__all__ = [
    "FLOW_NETWORKS",
    "MODELS",
    "PREPROCESSING",
    "RAFT",
    "Classifier",
    "ColorDecoder",
    "ContextDecoder",
    "Conv",
    "DINOHead",
    "Data2VecDecoder",
    "DepthDecoder",
    "Description",
    "Discriminator",
    "DispNetDecoder",
    "DispNetEncoder",
    "JEPAPredictor",
    "LoadedEncoder",
    "MAEDecoder",
    "Normalized",
    "PWCNet",
    "PixelHead",
    "PoseCNN",
    "PoseCorrelation",
    "PoseDecoder",
    "PretrainedEncoder",
    "Projector",
    "Prototypes",
    "ResNet",
    "TileClassifier",
    "UpConv",
    "ViT",
    "as_map",
    "build_depth_decoder",
    "build_encoder",
    "build_flow_network",
    "build_pose_network",
    "build_projector",
    "conv2d",
    "correlation_lookup",
    "correlation_pyramid",
    "cost_volume",
    "defaults",
    "encoder_module",
    "feature_encoder",
    "fit_weights",
    "from_linen",
    "is_vit",
    "lightness",
    "load_encoder",
    "load_torchvision_raft",
    "load_torchvision_resnet",
    "lookup",
    "parameter_count",
    "parameter_overview",
    "patchify",
    "preprocessing_name",
    "read_variables",
    "read_weights",
    "resize_positions",
    "rope_angles",
    "save_encoder",
    "save_weights",
    "sincos_positions",
    "standardized",
    "unpatchify",
    "upsample_flow",
]
