"""Every public function: strict dtype promotion, float32 under x64, and the modes of derivatives.

One table of calls covers `sslax.losses`, `sslax.ops`, `sslax.augment` and the modules of
`sslax.measures`; a function without a row fails. Types and modes are known without compiling, so
calls are only traced, except those that need values.
"""

import importlib
import inspect
import pkgutil
from functools import cache, partial
from types import SimpleNamespace

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from sslax import augment, losses, measures, ops
from sslax.measures import (
    collapse,
    depth,
    flow,
    geometry,
    knn,
    linear,
    logistic,
    pose,
    representation,
    rows,
    totals,
    uncertainty,
)
from sslax.types import DepthMaps, DepthTruth, FlowMaps, FlowTruth

KEY = jax.random.key(0)


@cache
def make_inputs(dtype) -> dict:
    """Arrays of one dtype, with B = 2 examples (or N = 8 embeddings)."""
    rng = np.random.default_rng(0)

    def uniform(*shape, low=0.1, high=0.9):
        return jnp.asarray(rng.uniform(low, high, shape), dtype)

    intrinsics = jnp.asarray([[[5.0, 0, 3], [0, 5, 2.5], [0, 0, 1]]] * 2, dtype)
    return {
        "a": uniform(8, 4, low=-1),
        "b": uniform(8, 4, low=-1),
        "wide": uniform(4, 24, low=-1),
        "views": uniform(8, 2, 3, low=-1),
        "labels": jnp.asarray([0, 0, 1, 1, 0, 1, 1, 0], jnp.int32),
        "image": uniform(2, 6, 7, 3),
        "other": uniform(2, 6, 7, 3),
        "flow": uniform(2, 6, 7, 2, low=-1),
        "back": uniform(2, 6, 7, 2, low=-1),
        "depth": uniform(2, 6, 7, low=1, high=4),
        "map": uniform(2, 6, 7, low=1, high=4),
        "mask": jnp.asarray(rng.uniform(size=(2, 6, 7)) > 0.3),
        "intrinsics": intrinsics,
        "twist": uniform(2, 6, low=-0.2, high=0.2),
        "scalar": uniform(),
        "vector": uniform(5),
        "patches": uniform(2, 3, 4),
        "tokens": jnp.asarray([[1, 0, 1], [0, 1, 1]], bool),
        "affine": jnp.asarray([[0.9, 0.1, 0.2], [0, 1, 0.1], [0, 0, 1]], dtype),
        "bins": jnp.asarray(ops.in_gamut_ab_bins(step=40.0), dtype),
        "points": uniform(2, 5, 3, low=1, high=2),
        "index": jnp.asarray([3, 5], jnp.int32),
    }


def poses(x):
    return ops.se3_exp(x.twist)


def batch(image, x, **others):
    return {"image": image, "index": x.index, **others}


def frames(x):
    return {
        "frames": x.image,
        "intrinsics": x.intrinsics[0],
        "baseline": x.scalar,
    }


def trajectory(offset=0.0):
    steps = np.tile(np.eye(4), (5, 1, 1))
    steps[:, :3, 3] = np.arange(15.0).reshape(5, 3) + offset * np.arange(5)[:, None] ** 2
    return steps


def sets(x):
    return x.a, x.labels, x.b, x.labels


def score(x):
    return totals.masked_score(x.depth, x.mask)


RECIPE = augment.get_flow_recipe(
    "smurf", size=(4, 5), affine={"rotate": 0.1, "zoom": (1.1, 1.2), "relative": {"rotate": 0.1}},
    exposure=0.5, noise=0.1, blur=0.5, blur_sigma=(0.1, 0.4), swap_channels=0.5,
)  # fmt: skip
FRAMES = augment.FrameRecipe(
    flip=0.5, zoom=(1.0, 1.2), jitter=0.5, brightness=0.2, hue=0.1, exposure=0.5
)
VIEWS = augment.get_view_recipes("byol", size=5, erase=0.5, blur_kernel_size=3)

LOSSES = {
    "Score": lambda x: losses.cosine(x.a, x.b),
    "barlow_twins": lambda x: (losses.barlow_twins(x.a, x.b), losses.barlow_twins(x.wide, x.wide)),
    "bilinear": lambda x: losses.info_nce(
        x.a, x.b, score=losses.bilinear(x.a[:4]), temperature=x.scalar
    ),
    "census_error": lambda x: losses.census_error(x.image, x.other, mask=x.mask, radius=1),
    "charbonnier": lambda x: losses.charbonnier(x.a),
    "class_rebalancing_weights": lambda x: losses.class_rebalancing_weights(x.vector),
    "cosine": lambda x: losses.cosine(x.a, x.b),
    "covariance_penalty": lambda x: (
        losses.covariance_penalty(x.a),
        losses.covariance_penalty(x.wide),
    ),
    "cross_correlation": lambda x: losses.cross_correlation(x.a, x.b),
    "decoupled_contrastive": lambda x: losses.decoupled_contrastive(
        x.a, x.b, temperature=x.scalar, sigma=0.5
    ),
    "decoupled_contrastive, tiled": lambda x: losses.decoupled_contrastive(x.a, x.b, tile=2),
    "disparity_consistency": lambda x: losses.disparity_consistency(x.depth, x.map),
    "distillation_cross_entropy": lambda x: losses.distillation_cross_entropy(
        x.a, x.b, center=x.a[0], student_temperature=x.scalar
    ),
    "dot": lambda x: losses.info_nce(x.a, x.b, score=losses.dot, temperature=x.scalar),
    "edge_aware_smoothness": lambda x: (
        losses.edge_aware_smoothness(x.depth, x.image, mean_normalize=True),
        losses.edge_aware_smoothness(
            x.flow, x.image, order=2, edge="gaussian", cross_terms=True, penalty=losses.robust_l1
        ),
    ),
    "emp_ssl": lambda x: (losses.emp_ssl(x.patches), losses.emp_ssl(x.views)),
    "explainability_regularization": lambda x: losses.explainability_regularization(x.a),
    "forward_backward_error": lambda x: losses.forward_backward_error(x.flow, x.back),
    "frossl": lambda x: (losses.frossl(x.patches), losses.frossl(x.views)),
    "gram_anchoring": lambda x: losses.gram_anchoring(x.patches, x.patches[::-1]),
    "info_nce": lambda x: (
        losses.info_nce(x.a, x.b, temperature=x.scalar),
        losses.info_nce(x.a, x.b, score=lambda q, k: q @ k.T),
    ),
    "info_nce, tiled": lambda x: losses.info_nce(x.a, x.b, negatives=x.b[:5], tile=2),
    "koleo": lambda x: losses.koleo(x.a),
    "l1": lambda x: losses.l1(x.a),
    "l2_normalize": lambda x: losses.l2_normalize(x.a),
    "lejepa": lambda x: losses.lejepa(x.patches, KEY, slices=3),
    "masked_mean": lambda x: (
        losses.masked_mean(x.depth, x.mask),
        losses.masked_mean(x.depth, x.map),
    ),
    "masked_patch_distillation": lambda x: (
        losses.masked_patch_distillation(
            x.patches, x.patches[::-1], x.tokens, center=x.a[0], student_temperature=x.scalar
        ),
        losses.masked_patch_distillation(
            x.patches, x.patches[::-1], x.tokens, iterations=2, teacher_temperature=x.scalar
        ),
    ),
    "masked_reconstruction": lambda x: losses.masked_reconstruction(
        x.patches, x.patches[::-1], x.tokens, normalize=True
    ),
    "mean_entropy_gap": lambda x: losses.mean_entropy_gap(x.a, temperature=x.scalar),
    "minimum_reprojection": lambda x: losses.minimum_reprojection(
        x.depth, identity_errors=x.map, valid=x.mask, key=KEY
    ),
    "mmcr": lambda x: losses.mmcr(x.patches, local_weight=0.1),
    "msn": lambda x: losses.msn(
        x.patches, x.patches[:, 0], temperature=x.scalar, sharpening=x.scalar
    ),
    "nearest_neighbor_contrastive": lambda x: losses.nearest_neighbor_contrastive(
        x.a, x.b, x.a[::-1], temperature=x.scalar
    ),
    "nearest_neighbor_contrastive, tiled": lambda x: losses.nearest_neighbor_contrastive(
        x.a, x.b, x.a[::-1], tile=2
    ),
    "negative_cosine": lambda x: losses.negative_cosine(x.a, x.b),
    "nt_xent": lambda x: losses.nt_xent(x.a, x.b, temperature=x.scalar),
    "nt_xent, tiled": lambda x: losses.nt_xent(x.a, x.b, tile=2),
    "photometric_error": lambda x: losses.photometric_error(x.image, x.other),
    "robust_l1": lambda x: losses.robust_l1(x.a),
    "robust_power": lambda x: losses.robust_power(x.a),
    "sequence_loss": lambda x: losses.sequence_loss(
        jnp.stack([x.flow, x.back]), x.back, mask=x.mask
    ),
    "sequence_weights": lambda x: losses.sequence_weights(3),
    "sigmoid_contrastive": lambda x: losses.sigmoid_contrastive(
        x.a, x.b, temperature=x.scalar, bias=x.scalar
    ),
    "sigmoid_contrastive, tiled": lambda x: losses.sigmoid_contrastive(x.a, x.b, tile=2),
    "sigreg": lambda x: losses.sigreg(x.patches, KEY, slices=3),
    "sup_con": lambda x: losses.sup_con(x.a, x.labels, temperature=x.scalar),
    "sup_con, tiled": lambda x: losses.sup_con(x.a, x.labels, tile=2),
    "swapped_prediction": lambda x: losses.swapped_prediction(
        x.patches, queue=x.patches[:, :2], temperature=x.scalar
    ),
    "tico": lambda x: losses.tico(x.a, x.b, x.b[:4]),
    "total_coding_rate": lambda x: (
        losses.total_coding_rate(x.a),
        losses.total_coding_rate(x.wide),
    ),
    "triplet": lambda x: (
        losses.triplet(x.a, x.b, x.a[::-1]),
        losses.triplet(x.a, x.b, x.a[::-1], margin=None),
    ),
    "update_center": lambda x: (
        losses.update_center(x.a[0], x.b),
        losses.update_center(x.patches[0, 0], x.patches, mask=x.tokens),
    ),
    "update_covariance": lambda x: losses.update_covariance(x.a[:4], x.b),
    "variance_hinge": lambda x: losses.variance_hinge(x.a),
    "vicreg": lambda x: (losses.vicreg(x.a, x.b), losses.vicreg(x.wide, x.wide)),
    "view_invariance": lambda x: losses.view_invariance(x.patches, global_views=2),
    "visreg": lambda x: losses.visreg(x.patches, KEY, slices=3),
    "w_mse": lambda x: losses.w_mse(x.patches, KEY, group_size=2, iterations=2),
}

OPS = {
    "ab_histogram": lambda x: ops.ab_histogram(40 * x.flow, x.bins),
    "annealed_mean": lambda x: ops.annealed_mean(x.bins[:, 0], x.bins),
    "backproject": lambda x: ops.backproject(x.depth, x.intrinsics),
    "bilinear_sample": lambda x: [
        ops.bilinear_sample(x.image[0], x.flow[0].astype(jnp.float32), padding=padding)
        for padding in ("border", "zeros", "reflection", "symmetric")
    ],
    "census_transform": lambda x: ops.census_transform(x.image, radius=1),
    "crop_intrinsics": lambda x: ops.crop_intrinsics(x.intrinsics, x.scalar, 1),
    "depth_to_disparity": lambda x: ops.depth_to_disparity(x.depth, x.scalar, 0.5, doffs=0.5),
    "disparity_to_depth": lambda x: ops.disparity_to_depth(x.depth, x.scalar, 0.5, doffs=0.5),
    "euler_to_matrix": lambda x: ops.euler_to_matrix(x.twist[:, :3]),
    "flip_intrinsics": lambda x: ops.flip_intrinsics(x.intrinsics, 7),
    "intrinsics_matrix": lambda x: ops.intrinsics_matrix(x.points[..., :2], x.points[..., 1:]),
    "forward_backward_confidence": lambda x: ops.forward_backward_confidence(
        x.flow, x.back, sigma=0.3
    ),
    "forward_backward_difference": lambda x: ops.forward_backward_difference(x.flow, x.back),
    "forward_backward_mask": lambda x: ops.forward_backward_mask(x.flow, x.back),
    "gaussian_blur": lambda x: ops.gaussian_blur(x.image, sigma=0.8, size=3),
    "gaussian_kernel": lambda x: ops.gaussian_kernel(1.0, 3),
    "image_gradients": lambda x: ops.image_gradients(x.image),
    "image_pyramid": lambda x: ops.image_pyramid(x.image, 2),
    "in_gamut_ab_bins": lambda x: ops.in_gamut_ab_bins(step=40.0),
    "jigsaw_permutations": lambda x: ops.jigsaw_permutations(3, tiles=3),
    "lab_to_rgb": lambda x: ops.lab_to_rgb(50 * x.image),
    "pixel_grid": lambda x: ops.pixel_grid(3, 4),
    "project": lambda x: ops.project(x.points, x.intrinsics),
    "range_map": lambda x: ops.range_map(x.flow),
    "range_map_mask": lambda x: (
        ops.range_map_mask(x.flow),
        ops.range_map_mask(x.flow, threshold=0.5),
    ),
    "resize": lambda x: [
        ops.resize(x.image, size, method=method)
        for size in ((4, 5), (12, 14), (3, 7))
        for method in ("bilinear", "area")
    ],
    "resize_intrinsics": lambda x: (
        ops.resize_intrinsics(x.intrinsics, 0.5),
        ops.resize_intrinsics(x.intrinsics, x.points[0, 0, :2]),
    ),
    "rgb_to_gray": lambda x: ops.rgb_to_gray(x.image),
    "rgb_to_lab": lambda x: ops.rgb_to_lab(x.image),
    "rigid_flow": lambda x: ops.rigid_flow(
        x.depth, poses(x), x.intrinsics, source_intrinsics=x.intrinsics
    ),
    "UnifiedCamera": lambda x: ops.backproject(
        x.depth, ops.UnifiedCamera(x.intrinsics, jnp.full(x.intrinsics.shape[:-2], x.scalar))
    ),
    "rigid_transform": lambda x: ops.rigid_transform(ops.so3_exp(x.twist[:, 3:]), x.twist[:, :3]),
    "se3_exp": lambda x: ops.se3_exp(x.twist),
    "se3_inverse": lambda x: ops.se3_inverse(poses(x)),
    "separable_filter": lambda x: ops.separable_filter(x.image, (0.25, 0.5, 0.25)),
    "sigmoid_to_depth": lambda x: ops.sigmoid_to_depth(x.image),
    "sinkhorn": lambda x: (ops.sinkhorn(x.a), ops.sinkhorn(x.a, weights=x.labels)),
    "so3_exp": lambda x: ops.so3_exp(x.twist[:, 3:]),
    "soft_encode_ab": lambda x: ops.soft_encode_ab(40 * x.flow, x.bins, neighbors=3),
    "spherical_kmeans": lambda x: ops.spherical_kmeans(x.a, x.a[:2])[0],
    "splat": lambda x: ops.splat(x.image, x.flow),
    "ssim": lambda x: ops.ssim(x.image, x.other),
    "transform_points": lambda x: ops.transform_points(poses(x), x.points),
    "viewing_rays": lambda x: ops.viewing_rays(x.flow, x.intrinsics),
    "warp_disparity": lambda x: [
        ops.warp_disparity(x.image, x.depth, padding=padding)
        for padding in ("border", "zeros", "reflection", "symmetric")
    ],
    "warp_flow": lambda x: ops.warp_flow(x.image, x.flow),
}

AUGMENT = {
    "AffineRecipe": None,
    "Box": None,
    "FlowRecipe": None,
    "RelativeAffine": None,
    "FrameRecipe": None,
    "TokenBlocks": None,
    "ViewRecipe": None,
    "adjust_brightness": lambda x: augment.adjust_brightness(x.image[0], x.scalar),
    "adjust_contrast": lambda x: augment.adjust_contrast(x.image[0], x.scalar),
    "adjust_hue": lambda x: augment.adjust_hue(x.image[0], x.scalar),
    "adjust_saturation": lambda x: augment.adjust_saturation(x.image[0], x.scalar),
    "apply_affine": lambda x: augment.apply_affine(x.affine, x.flow),
    "apply_separable": lambda x: augment.apply_separable(x.image[0], x.depth[0, :, :6], x.depth[0]),
    "batch_keys": lambda x: jax.random.key_data(augment.batch_keys(KEY, {"index": x.index})),
    "blockwise_masking": lambda x: augment.blockwise_masking(KEY, (6, 7)),
    "blur_kernel_size": lambda x: augment.blur_kernel_size(32),
    "center_crop": lambda x: augment.center_crop(x.image[0], size=3),
    "center_mask": lambda x: augment.center_mask(6, 8, side=4, overlap=1),
    "chromatic_aberration": lambda x: augment.chromatic_aberration(
        x.image[0], scale_red=x.scalar, scale_blue=1.1
    ),
    "color_jitter": lambda x: (
        augment.color_jitter(KEY, x.image[0], brightness=0.4, contrast=0.4, saturation=0.4),
        augment.color_jitter(KEY, x.image[0], brightness=0.4, hue=0.1, probability=0.5),
    ),
    "drop_colors": lambda x: augment.drop_colors(KEY, x.image[0]),
    "example_keys": lambda x: jax.random.key_data(augment.example_keys(KEY, x.index)),
    "gaussian_blur": lambda x: augment.gaussian_blur(x.image[0], x.scalar, kernel_size=3),
    "get_flow_recipe": None,
    "get_frame_recipe": None,
    "get_local_recipes": None,
    "get_view_recipes": None,
    "invert_affine": lambda x: augment.invert_affine(x.affine),
    "inverse_block_masking": lambda x: augment.inverse_block_masking(KEY, (6, 7)),
    "jigsaw_tiles": lambda x: augment.jigsaw_tiles(KEY, x.image[0], grid=2, tile=1, jitter=1),
    "location_class": lambda x: augment.location_class(x.points[..., :2] - 1, 3),
    "make_frame_pairs": lambda x: augment.make_frame_pairs(RECIPE)(
        KEY, batch(jnp.stack([x.image, x.other], 1), x)
    ),
    "make_frames": lambda x: augment.make_frames(FRAMES, stereo=True)(
        KEY,
        batch(jnp.stack([x.image, x.other], 1), x, intrinsics=x.intrinsics, baseline=x.vector[:2]),
    ),
    "make_view": lambda x: augment.make_view(KEY, x.image[0], VIEWS[0]),
    "make_views": lambda x: augment.make_views(VIEWS, augment.get_local_recipes("dino", 1, size=4))(
        KEY, batch(x.image, x)
    ),
    "patch_pair": lambda x: augment.patch_pair(KEY, x.image[0], patch=1, gap=1, jitter=0),
    "photometric_augmentation": lambda x: augment.photometric_augmentation(KEY, x.image, RECIPE),
    "project_colors": lambda x: augment.project_colors(x.image[0]),
    "random_block_mask": lambda x: augment.random_block_mask(KEY, 6, 7, blocks=2, side=2),
    "random_box_mask": lambda x: augment.random_box_mask(KEY, (6, 7)),
    "random_downsample": lambda x: augment.random_downsample(KEY, x.image[0], min_pixels=4),
    "random_eraser": lambda x: augment.random_eraser(KEY, x.image[0]),
    "random_erasing": lambda x: augment.random_erasing(KEY, x.image[0]),
    "random_exposure": lambda x: augment.random_exposure(KEY, x.image),
    "random_flip": lambda x: augment.random_flip(KEY, x.image[0]),
    "random_flip_frames": lambda x: augment.random_flip_frames(KEY, frames(x)),
    "random_gaussian_blur": lambda x: augment.random_gaussian_blur(
        KEY, x.image[0], kernel_size=3, probability=0.5
    ),
    "random_grayscale": lambda x: augment.random_grayscale(KEY, x.image[0]),
    "random_masking": lambda x: augment.random_masking(KEY, 8),
    "random_occluder": lambda x: augment.random_occluder(KEY, x.image[0]),
    "random_patch": lambda x: augment.random_patch(KEY, x.image[0], patch=2),
    "random_region_mask": lambda x: augment.random_region_mask(KEY, 6, 7),
    "random_resized_crop": lambda x: augment.random_resized_crop(KEY, x.image[0], size=4),
    "random_solarize": lambda x: augment.random_solarize(KEY, x.image[0]),
    "random_token_blocks": lambda x: augment.random_token_blocks(KEY, (6, 6), min_context=2),
    "random_unit_masking": lambda x: augment.random_unit_masking(KEY, (6, 4)),
    "random_zoom_frames": lambda x: augment.random_zoom_frames(KEY, frames(x)),
    "resize": lambda x: (
        augment.resize(x.image[0], size=4),
        augment.resize(x.image[0], size=(6, 7)),
    ),
    "resized_crop": lambda x: augment.resized_crop(x.image[0], 1, 1, 4, 3, size=(2, 3)),
    "rotations": lambda x: augment.rotations(x.image[0, :, :6]),
    "sample_affine": lambda x: augment.sample_affine(KEY, (6, 7), RECIPE.affine),
    "sample_box": lambda x: augment.sample_box(KEY, 6, 7),
    "solarize": lambda x: augment.solarize(x.image[0]),
    "standardize": lambda x: augment.standardize(x.image[0]),
    "to_float": lambda x: (
        augment.to_float(x.image),
        augment.to_float((255 * x.image).astype(jnp.uint8)),
    ),
    "to_grayscale": lambda x: augment.to_grayscale(x.image[0]),
    "warp_affine": lambda x: augment.warp_affine(x.image[0], x.affine),
    "warp_affine_flow": lambda x: augment.warp_affine_flow(x.flow[0], x.affine, x.affine),
}

MEASURES = {
    "collapse.alignment": lambda x: collapse.alignment(x.a, x.b),
    "collapse.effective_rank": lambda x: collapse.effective_rank(x.a),
    "collapse.embedding_std": lambda x: collapse.embedding_std(x.a),
    "collapse.lidar": lambda x: collapse.lidar(jnp.stack([x.a, x.b], axis=1)),
    "collapse.rankme": lambda x: collapse.rankme(x.a),
    "collapse.relative_embedding_std": lambda x: collapse.relative_embedding_std(x.a),
    "collapse.uniformity": lambda x: collapse.uniformity(x.a),
    "depth.crop_mask": lambda x: depth.crop_mask(6, 7, "garg"),
    "depth.depth_errors": lambda x: depth.depth_errors(x.depth, x.map, x.mask, scale=x.vector[:2]),
    "depth.disparity_errors": lambda x: depth.disparity_errors(x.depth, x.map),
    "depth.evaluate_depths": lambda x: depth.evaluate_depths([(x.depth[0], x.map[0])]),
    "depth.flip_average": lambda x: depth.flip_average(x.depth, x.map),
    "depth.median_ratio": lambda x: depth.median_ratio(x.depth, x.map, x.mask),
    "depth.near_boundary": lambda x: depth.near_boundary(x.depth),
    "depth.resize_depth": lambda x: depth.resize_depth(x.depth, (3, 4)),
    "depth.resize_disparity": lambda x: depth.resize_disparity(x.depth, (3, 4)),
    "depth.valid_depth": lambda x: depth.valid_depth(x.depth),
    "flow.endpoint_error": lambda x: flow.endpoint_error(x.flow, x.back),
    "flow.flow_errors": lambda x: flow.flow_errors(x.flow, x.back, x.mask, visible=x.mask),
    "flow.occlusion_counts": lambda x: flow.occlusion_counts(x.depth, x.mask),
    "flow.occlusion_scores": lambda x: flow.occlusion_scores(
        flow.occlusion_counts(x.depth, x.mask)
    ),
    "flow.resize_flow": lambda x: flow.resize_flow(x.flow, (3, 4)),
    "geometry.camera_errors": lambda x: geometry.camera_errors(x.intrinsics, x.intrinsics),
    "geometry.measure_depth": lambda x: geometry.measure_depth(
        DepthMaps(depth=x.depth, disparity=x.depth),
        DepthTruth(depth=x.map, intrinsics=x.intrinsics, baseline=x.vector[:2]),
    ),
    "geometry.measure_flow": lambda x: geometry.measure_flow(
        FlowMaps(flow=x.flow), FlowTruth(flow=x.back)
    ),
    "geometry.trajectories": lambda x: geometry.trajectories(
        DepthMaps(pose=np.tile(np.eye(4), (4, 3, 1, 1))), DepthTruth(sequence=np.zeros(4))
    ),
    "geometry.trivial_depth": lambda x: geometry.trivial_depth(
        DepthMaps(depth=x.depth), DepthTruth(depth=x.map)
    ),
    "geometry.trivial_flow": lambda x: geometry.trivial_flow(FlowMaps(flow=x.flow), FlowTruth()),
    "geometry.true_disparity": lambda x: geometry.true_disparity(
        DepthTruth(depth=x.map, intrinsics=x.intrinsics, baseline=x.vector[:2])
    ),
    "knn.knn_accuracy": lambda x: knn.knn_accuracy(*sets(x), num_classes=2, k=3),
    "knn.knn_probabilities": lambda x: knn.knn_probabilities(
        x.a, x.labels, x.b, num_classes=2, k=3
    ),
    "knn.nearest_neighbors": lambda x: knn.nearest_neighbors(x.a, x.b, k=3),
    "knn.vote": lambda x: knn.vote(x.a, jnp.zeros((8, 4), jnp.int32), 2, 0.1),
    "linear.draw_fraction": lambda x: linear.draw_fraction(x.labels, 0.5),
    "linear.few_label_accuracy": lambda x: linear.few_label_accuracy(
        *sets(x), num_classes=2, labels_per_class=2, trials=1
    ),
    "linear.held_out_mask": lambda x: linear.held_out_mask(x.labels),
    "linear.label_fraction_accuracy": lambda x: linear.label_fraction_accuracy(
        *sets(x), num_classes=2, fraction=0.5, trials=1
    ),
    "linear.logistic_regression": lambda x: linear.logistic_regression(
        *sets(x), num_classes=2, l2=0.1
    ),
    "linear.sgd_probe": lambda x: linear.sgd_probe(
        *sets(x), num_classes=2, epochs=2, learning_rates=[0.1]
    ),
    "logistic.append_ones": lambda x: logistic.append_ones(x.a),
    "logistic.fit_logistic": lambda x: logistic.fit_logistic(x.a, x.labels, num_classes=2, l2=0.1),
    "logistic.inverse_deviation": lambda x: logistic.inverse_deviation(x.a.mean(0), x.a.std(0)),
    "logistic.solver_bytes": None,
    "logistic.principal_coordinates": lambda x: logistic.principal_coordinates(x.a, x.b),
    "logistic.standardize": lambda x: logistic.standardize(x.a, x.b),
    "pose.absolute_trajectory_error": lambda x: pose.absolute_trajectory_error(
        trajectory(1.0), trajectory()
    ),
    "pose.align_trajectory": lambda x: pose.align_trajectory(
        trajectory(1.0), trajectory(), align="sim3"
    ),
    "pose.compose_poses": lambda x: pose.compose_poses(trajectory()),
    "pose.consecutive_motions": lambda x: pose.consecutive_motions(trajectory()[None]),
    "pose.inverse_poses": lambda x: pose.inverse_poses(trajectory()),
    "pose.odometry_errors": lambda x: pose.odometry_errors(
        pose.odometry_segments(trajectory(1.0), trajectory(), lengths=(4.0,), step=1)
    ),
    "pose.odometry_segments": lambda x: pose.odometry_segments(trajectory(), trajectory()),
    "pose.relative_pose_errors": lambda x: pose.relative_pose_errors(trajectory(1.0), trajectory()),
    "pose.relative_poses": lambda x: pose.relative_poses(trajectory()),
    "pose.rotation_angle": lambda x: pose.rotation_angle(trajectory()[:, :3, :3]),
    "pose.snippet_errors": lambda x: pose.snippet_errors(trajectory(1.0)[None], trajectory()[None]),
    "pose.snippets": lambda x: pose.snippets(trajectory(), length=3),
    "pose.translation_scale": lambda x: pose.translation_scale(x.points[0], x.points[1]),
    "pose.umeyama": lambda x: pose.umeyama(x.points[0], x.points[1], with_scale=True),
    "representation.evaluate_features": lambda x: representation.evaluate_features(
        {"features": x.a}, None, {"features": x.b}, None
    ),
    "representation.pixel_features": lambda x: representation.pixel_features(x.image, max_side=4),
    "representation.stage_of": None,
    "representation.stages_fit": None,
    "rows.block_sum": lambda x: rows.block_sum(lambda a: a.sum(0), (x.a,), 3),
    "rows.gather": lambda x: rows.gather(x.a, rows.one_device()),
    "rows.one_device": None,
    "rows.own": lambda x: rows.own(x.a),
    "rows.take": lambda x: rows.take(x.a, np.arange(2), rows.one_device()),
    "totals.image_means": lambda x: totals.image_means(totals.totals({"a": score(x)})),
    "totals.indicator": lambda x: totals.indicator(x.depth > 2, x.depth),
    "totals.masked_score": lambda x: totals.masked_score(x.depth, x.mask),
    "totals.merge": lambda x: totals.merge(totals.totals({"a": score(x)}), {}),
    "totals.pixel_means": lambda x: totals.pixel_means(totals.totals({"a": score(x)})),
    "totals.totals": lambda x: totals.totals({"a": score(x)}),
    "uncertainty.sparsification": lambda x: uncertainty.sparsification(x.a[0] ** 2, x.a[1]),
}

# Rows by "package.name", perhaps with a variant after a comma; None for what takes no arrays.
FUNCTIONS = {
    f"{package}.{name}": call
    for package, calls in (
        ("losses", LOSSES),
        ("ops", OPS),
        ("augment", AUGMENT),
        ("measures", MEASURES),
    )
    for name, call in calls.items()
}
CALLS = {name: call for name, call in FUNCTIONS.items() if call is not None}
# Results on the host, or which depend on values.
NEED_VALUES = (
    *("ops.gaussian_kernel", "augment.blur_kernel_size"),
    *("measures.depth.evaluate", "measures.flow.occlusion_scores", "measures.geometry"),
    *("measures.knn.knn_accuracy", "measures.linear", "measures.pose", "measures.representation"),
    *("measures.totals.image", "measures.totals.merge", "measures.totals.pixel"),
    *("measures.totals.totals", "measures.logistic.fit_logistic", "measures.rows"),
    "measures.uncertainty",
)
REVERSE_ONLY = {
    *("losses.census_error", "losses.photometric_error"),
    *("ops.gaussian_blur", "ops.separable_filter", "ops.ssim"),
    *(name for name in CALLS if name.endswith(", tiled")),
}
DIFFERENTIABLE = [name for name in CALLS if not name.startswith("measures.")]


def public_function(name):
    """The function of a row's name, such as 'losses.nt_xent' or 'measures.knn.vote'."""
    module, _, name = name.partition(",")[0].rpartition(".")
    return getattr(importlib.import_module(f"sslax.{module}"), name)


def run(name, inputs):
    """The result of a row, or its shapes and dtypes."""
    call = CALLS[name]
    if name.startswith(NEED_VALUES):
        return call(SimpleNamespace(**inputs))
    return jax.eval_shape(lambda inputs: call(SimpleNamespace(**inputs)), inputs)


def public_names():
    for package in (losses, ops, augment):
        for name in package.__all__:
            if callable(getattr(package, name)):
                yield f"{package.__name__.removeprefix('sslax.')}.{name}"
    for info in pkgutil.iter_modules(measures.__path__):
        module = importlib.import_module(f"sslax.measures.{info.name}")
        for name, value in vars(module).items():
            own = getattr(value, "__module__", "") == module.__name__
            public = not (name.startswith("_") or info.name.startswith("_"))
            if own and public and callable(value) and not inspect.isclass(value):
                yield f"measures.{info.name}.{name}"


def test_every_public_function_has_a_row():
    assert {name.partition(",")[0] for name in FUNCTIONS} == set(public_names())


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", CALLS)
def test_strict_promotion(name, dtype):
    with jax.numpy_dtype_promotion("strict"):
        run(name, make_inputs(dtype))


@pytest.mark.parametrize("name", CALLS)
def test_results_of_float32_are_float32_under_x64(name):
    inputs = make_inputs(jnp.float32)
    with jax.enable_x64(True):
        leaves = jax.tree.leaves(run(name, inputs))
    for leaf in leaves:
        if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
            assert leaf.dtype not in (jnp.float64, jnp.int64)


def traced(function, x):
    """The function of a tree, whose Python runs once for all its derivatives."""
    program, shapes = jax.make_jaxpr(function, return_shape=True)(x)
    run = jax.extend.core.jaxpr_as_fun(program)
    return lambda x: jax.tree.unflatten(jax.tree.structure(shapes), run(*jax.tree.leaves(x)))


def forward(function, x):
    return jax.jvp(function, (x,), (x,))


def norm(tree):
    return sum(leaf.sum() for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_modes_of_derivatives(name):
    """Each function has the modes that its docstring says; values are tested elsewhere."""
    call, inputs = CALLS[name], make_inputs(jnp.float32)
    floating = {k: v for k, v in inputs.items() if jnp.issubdtype(v.dtype, jnp.floating)}
    others = {k: v for k, v in inputs.items() if k not in floating}

    def total(floating):
        leaves = jax.tree.leaves(call(SimpleNamespace(**floating, **others)))
        leaves = [jnp.asarray(leaf) for leaf in leaves]
        return sum(
            ((v * v).sum() for v in leaves if jnp.issubdtype(v.dtype, jnp.floating)),
            sum(v.sum() for v in floating.values()),
        )

    total = traced(total, floating)
    slope = jax.grad(total)
    if name in REVERSE_ONLY:
        for function in (total, slope):
            with pytest.raises(TypeError, match="custom_vjp"):
                jax.jit(partial(forward, function)).lower(floating)
    else:  # a custom vjp would be found out only when the jvp is compiled
        assert "custom_vjp" not in str(jax.make_jaxpr(total)(floating))
        slope = traced(slope, floating)
        jax.eval_shape(partial(forward, slope), floating)
    jax.eval_shape(jax.grad(lambda x: norm(slope(x))), floating)
    declared = "reverse mode only" in " ".join((public_function(name).__doc__ or "").split())
    assert declared == (name in REVERSE_ONLY or f"{name}, tiled" in REVERSE_ONLY)
