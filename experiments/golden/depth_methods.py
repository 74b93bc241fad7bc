"""Golden values of tests/methods/test_depth_methods.py: losses of depth and ego-motion in PyTorch.

    python experiments/golden/depth_methods.py tests/methods/golden/depth.npz

needs torch, but not this package. The papers' equations in float64, with PyTorch's sampler, matrix
exponential and derivatives; maps and twists are given in place of networks that predict them.
"""

import sys

import numpy as np
import torch
from torch.nn import functional

B, H, W, SCALES = 2, 12, 16, 2


def smooth(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Random images `[..., 3, H, W]` in (0, 1) without noise from pixel to pixel."""
    coarse = torch.from_numpy(rng.random((int(np.prod(shape)) * 3, 1, 5, 6)))
    fine = functional.interpolate(coarse, (H, W), mode="bicubic", align_corners=True)
    return fine.clip(0.01, 0.99).reshape(*shape, 3, H, W).numpy()


def inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    still = smooth(rng, B, 1)
    image = 0.1 * still + 0.9 * smooth(rng, B, 4)  # three frames and the partner
    focal, middle = 13.0 + rng.random(B), rng.random((B, 2)) - 0.5
    intrinsics = np.zeros((B, 3, 3))
    intrinsics[:, 0, 0], intrinsics[:, 1, 1], intrinsics[:, 2, 2] = focal, 1.1 * focal, 1.0
    intrinsics[:, 0, 2], intrinsics[:, 1, 2] = 7.5 + middle[:, 0], 5.5 + middle[:, 1]
    made = {
        "image": np.moveaxis(image, 2, -1),
        "intrinsics": intrinsics,
        "baseline": np.array([0.3, -0.2]),
        "distance": rng.random((B, 3)) * 0.2,
        # Translation, then axis times angle; from the target to the frames before and after.
        "twists": np.concatenate(
            [0.15 * rng.standard_normal((B, 2, 3)), 0.04 * rng.standard_normal((B, 2, 3))], -1
        ),
    }
    for scale in range(SCALES):
        size = (H >> scale, W >> scale)
        made[f"logits{scale}"] = rng.standard_normal((B, *size, 2))
        made[f"explain{scale}"] = rng.standard_normal((B, *size, 2))
    return made


def area(image: torch.Tensor, scale: int) -> torch.Tensor:
    return functional.avg_pool2d(image, 2**scale) if scale else image


def sample(image: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> tuple:
    """`image [B, C, h, w]` at pixels, the border repeated; and where that is inside."""
    height, width = image.shape[-2:]
    grid = torch.stack([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], -1)
    values = functional.grid_sample(image, grid, padding_mode="border", align_corners=True)
    # Rows that do not move are inside, whatever the rounding.
    inside = (x >= -1e-9) & (x <= width - 1 + 1e-9) & (y >= -1e-9) & (y <= height - 1 + 1e-9)
    return values, inside


def pixels(height: int, width: int) -> tuple:
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float64),
        torch.arange(width, dtype=torch.float64),
        indexing="ij",
    )
    return x, y


def photometric(target: torch.Tensor, other: torch.Tensor, weight: float) -> torch.Tensor:
    """`[B, h, w]`."""

    def mean(image: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool2d(functional.pad(image, (1, 1, 1, 1), mode="reflect"), 3, 1)

    a, b = mean(target), mean(other)
    va, vb = mean(target**2) - a**2, mean(other**2) - b**2
    cov = mean(target * other) - a * b
    similarity = (2 * a * b + 0.01**2) * (2 * cov + 0.03**2)
    similarity = similarity / ((a**2 + b**2 + 0.01**2) * (va + vb + 0.03**2))
    dissimilar = ((1 - similarity) / 2).clip(0, 1)
    return (weight * dissimilar + (1 - weight) * (target - other).abs()).mean(1)


def masked(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (values * mask).sum() / mask.sum()


def first_order(field: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Smoothness of `[B, h, w]`, weighted down at the edges of `[B, 3, h, w]`."""
    dx, dy = field.diff(dim=2).abs(), field.diff(dim=1).abs()
    wx, wy = (torch.exp(-image.diff(dim=d).abs().mean(1)) for d in (3, 2))
    return (wx * dx).mean() + (wy * dy).mean()


def second_order(field: torch.Tensor) -> torch.Tensor:
    dx, dy = field.diff(dim=2), field.diff(dim=1)
    parts = dx.diff(dim=2), dx.diff(dim=1), dy.diff(dim=2), dy.diff(dim=1)
    return sum(part.abs().mean() for part in parts)


def pose_of(twist: torch.Tensor) -> torch.Tensor:
    x, y, z = twist[..., 3:].unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*x.shape, 3, 3)
    upper = torch.cat([torch.matrix_exp(skew), twist[..., :3, None]], -1)
    last = torch.tensor([0.0, 0, 0, 1], dtype=torch.float64).expand(*x.shape, 1, 4)
    return torch.cat([upper, last], -2)


def stereo_pose(baseline: torch.Tensor) -> torch.Tensor:
    pose = torch.eye(4, dtype=torch.float64).repeat(len(baseline), 1, 1)
    pose[:, 0, 3] = -baseline
    return pose


def camera_at(intrinsics: torch.Tensor, scale: int) -> torch.Tensor:
    """Intrinsics of images averaged over 2^s x 2^s pixels."""
    s = 2.0**-scale
    small = intrinsics.clone()
    small[:, 0, 0], small[:, 1, 1] = s * intrinsics[:, 0, 0], s * intrinsics[:, 1, 1]
    small[:, :2, 2] = (intrinsics[:, :2, 2] + 0.5) * s - 0.5
    return small


def reproject(
    source: torch.Tensor, depth: torch.Tensor, pose: torch.Tensor, intrinsics: torch.Tensor
) -> tuple:
    """The target, reconstructed from `source [B, C, h, w]`, and where that is valid."""
    height, width = depth.shape[1:]
    x, y = pixels(height, width)
    rays = torch.einsum(
        "bij,jhw->bihw", torch.linalg.inv(intrinsics), torch.stack([x, y, torch.ones_like(x)])
    )
    points = torch.einsum("bij,bjhw->bihw", pose[:, :3, :3], depth[:, None] * rays)
    points = points + pose[:, :3, 3, None, None]
    seen = torch.einsum("bij,bjhw->bihw", intrinsics, points)
    ahead = seen[:, 2] > 1e-3
    z = torch.where(ahead, seen[:, 2], 1.0)
    values, inside = sample(source, seen[:, 0] / z, seen[:, 1] / z)
    return values, inside & ahead


def monodepth(given: dict, *, naive: bool) -> dict:
    left, right = given["image"][:, 1], given["image"][:, 3]
    terms = {"photometric": 0.0, "smoothness": 0.0, "consistency": 0.0}
    for scale in range(SCALES):
        maps = torch.sigmoid(given[f"logits{scale}"])
        height, width = maps.shape[1:3]
        x, y = (c.expand(B, height, width) for c in pixels(height, width))
        views = [area(left, scale), area(right, scale)]
        fractions = [0.3 * maps[..., 0], 0.3 * maps[..., 1]]
        for side in (0, 1):
            if naive and side == 0:
                continue
            fraction = fractions[0] if naive else fractions[side]
            sign = (-1, 1)[side]
            image, inside = sample(views[1 - side], x + sign * width * fraction, y)
            error = photometric(views[side], image, 0.85)
            terms["photometric"] += masked(error, inside)
            terms["smoothness"] += first_order(fraction, views[side]) / 2**scale
            if not naive:
                other = fractions[1 - side][:, None]
                met, inside = sample(other, x + sign * width * fraction, y)
                terms["consistency"] += masked((fraction - met[:, 0]).abs(), inside)
    loss = terms["photometric"] + 0.1 * terms["smoothness"] + terms["consistency"]
    return {"loss": loss, **{k: v for k, v in terms.items() if not (naive and k == "consistency")}}


def sfm_learner(given: dict, *, explain: float) -> dict:
    poses = pose_of(0.2 * given["twists"])  # these depths are less than a meter
    terms = {"photometric": 0.0, "smoothness": 0.0}
    entropy = 0.0
    for scale in range(SCALES):
        inverse = 10 * torch.sigmoid(given[f"logits{scale}"][..., 0]) + 0.01
        target = area(given["image"][:, 1], scale)
        camera = camera_at(given["intrinsics"], scale)
        for i, frame in enumerate((0, 2)):
            source = area(given["image"][:, frame], scale)
            image, seen = reproject(source, 1 / inverse, poses[:, i], camera)
            error = (target - image).abs().mean(1)
            if explain:
                weight = torch.sigmoid(given[f"explain{scale}"][..., i])
                entropy = entropy - weight.log().mean()
                error = weight * error
            terms["photometric"] += masked(error, seen)
        terms["smoothness"] += second_order(inverse) / 2**scale
    loss = terms["photometric"] + 0.5 * terms["smoothness"] + explain * entropy
    return {"loss": loss, **terms}


def monodepth2(
    given: dict,
    *,
    frames: int = 3,
    stereo: bool = False,
    minimum: bool = True,
    automask: bool = True,
    full: bool = True,
    ssim: float = 0.85,
    velocity: float = 0.0,
    consistency: float = 0.0,
) -> dict:
    target = given["image"][:, 1]
    sources, poses = [], []
    if frames > 1:
        # Pairs are in order of time: the earlier frame's pose leads from it to the target.
        before = torch.linalg.inv(pose_of(given["twists"][:, 0]))
        poses += [before, pose_of(given["twists"][:, 1])]
        sources += [given["image"][:, 0], given["image"][:, 2]]
    if stereo:
        poses.append(stereo_pose(given["baseline"]))
        sources.append(given["image"][:, 3])
    terms = {"photometric": 0.0, "smoothness": 0.0, "automask": 0.0, "loss_at_chance": 0.0}
    for scale in range(SCALES):
        sigma = torch.sigmoid(given[f"logits{scale}"][..., 0])
        size = 0 if full else scale
        large = sigma
        if full:
            large = functional.interpolate(
                sigma[:, None], (H, W), mode="bilinear", align_corners=False
            )[:, 0]
        depth = 1 / (1 / 8.0 + (1 / 0.5 - 1 / 8.0) * large)
        image, camera = area(target, size), camera_at(given["intrinsics"], size)
        errors, seen, still = [], [], []
        for source, pose in zip(sources, poses):
            source = area(source, size)
            warped, valid = reproject(source, depth, pose, camera)
            errors.append(photometric(image, warped, ssim))
            seen.append(valid)
            still.append(photometric(image, source, ssim))
        errors, seen, still = torch.stack(errors), torch.stack(seen), torch.stack(still)
        if minimum:
            error = torch.where(seen, errors, torch.inf).amin(0)
            identity = still.amin(0)
        else:
            error = (errors * seen).sum(0) / seen.sum(0).clip(1)
            identity = still.mean(0)
        known = seen.any(0)
        error = torch.where(known, error, 0.0)
        kept = known & (error <= identity) if automask else known
        chosen = torch.minimum(error, identity) if automask else error
        terms["photometric"] += masked(chosen, known) / SCALES
        terms["automask"] += kept.double().mean() / SCALES
        terms["loss_at_chance"] += identity.mean() / SCALES
        normal = sigma / (sigma.mean((1, 2), keepdim=True) + 1e-7)
        terms["smoothness"] += first_order(normal, area(target, scale)) / 2**scale / SCALES
    loss = terms["photometric"] + 1e-3 * terms["smoothness"]
    if velocity:
        length = torch.stack([pose[:, :3, 3].norm(dim=-1) for pose in poses[:2]], 1)
        terms["velocity"] = (length - given["distance"][:, [0, 2]]).abs().mean()
        loss = loss + velocity * terms["velocity"]
    if consistency:
        own, other = (
            1 / (1 / 8.0 + (1 / 0.5 - 1 / 8.0) * torch.sigmoid(given["logits0"][..., i]))
            for i in (0, 1)
        )
        met, seen = reproject(other[:, None], own, poses[-1], given["intrinsics"])
        met = met[:, 0]
        terms["consistency"] = masked((own - met).abs() / (own + met), seen)
        loss = loss + consistency * terms["consistency"]
    return {"loss": loss, **terms}


CASES = {
    "monodepth": (monodepth, {"naive": False}),
    "monodepth naive": (monodepth, {"naive": True}),
    "sfm_learner": (sfm_learner, {"explain": 0.2}),
    "monodepth2 S": (monodepth2, {"frames": 1, "stereo": True, "consistency": 0.5}),
    "monodepth2 MS": (monodepth2, {"stereo": True, "velocity": 0.7}),
    "monodepth2 mean": (monodepth2, {"minimum": False}),
    "monodepth2 bare": (
        monodepth2,
        {"minimum": False, "automask": False, "full": False, "ssim": 0.0},
    ),
}


def main(path: str) -> None:
    golden = inputs()
    tensors = {name: torch.from_numpy(value) for name, value in golden.items()}
    tensors["image"] = tensors["image"].movedim(-1, 2)
    for name, (method, knobs) in CASES.items():
        given = {key: value.clone() for key, value in tensors.items()}
        for key, value in given.items():
            value.requires_grad_(key.startswith(("logits", "explain", "twists")))
        terms = method(given, **knobs)
        terms["loss"].backward()
        for term, value in terms.items():
            golden[f"{name}: {term}"] = np.asarray(value.detach())
        for key, value in given.items():
            if value.grad is not None:
                golden[f"{name}: d {key}"] = value.grad.numpy()
    np.savez_compressed(path, **{k: v.astype(np.float32) for k, v in golden.items()})


if __name__ == "__main__":
    main(sys.argv[1])
