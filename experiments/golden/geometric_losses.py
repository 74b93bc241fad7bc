"""Golden values of the losses of depth and flow, and of the occlusion masks.

    python experiments/golden/geometric_losses.py tests/losses/golden/geometric.npz

needs torch and scikit-image, and not this package. Photometric error, minimum reprojection and
the sequence loss are written in torch, with gradients by its autograd; everything else in loops
over pixels in float64.
"""

import sys

import numpy as np
import torch
import torch.nn.functional as F
from skimage import data

RADIUS = 2
SOFTNESS, THRESHOLD = 0.81, 0.1


def photometric(target: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """`[..., C, H, W]` to `[..., H, W]`: 0.85 dissimilarity and 0.15 absolute difference."""
    mean = lambda x: F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, 1)  # noqa: E731
    mean_a, mean_b = mean(target), mean(other)
    variances = mean(target**2) - mean_a**2 + mean(other**2) - mean_b**2
    covariance = mean(target * other) - mean_a * mean_b
    numerator = (2 * mean_a * mean_b + 0.01**2) * (2 * covariance + 0.03**2)
    ssim = numerator / ((mean_a**2 + mean_b**2 + 0.01**2) * (variances + 0.03**2))
    dissimilarity = torch.clamp((1 - ssim) / 2, 0, 1).mean(1)
    return 0.85 * dissimilarity + 0.15 * (target - other).abs().mean(1)


def photometric_values(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> dict[str, np.ndarray]:
    """`b` and `c` are the warped sources of target `a`; shifted by a pixel, the unwarped ones."""
    tensor = lambda x: torch.from_numpy(x).permute(2, 0, 1)[None]  # noqa: E731
    target, sources = tensor(a), [tensor(x).requires_grad_() for x in (b, c)]
    errors = torch.cat([photometric(target, source) for source in sources])
    errors[0].mean().backward(retain_graph=True)
    gradient = sources[0].grad[0].permute(1, 2, 0).clone()
    sources[0].grad = None
    moved = [torch.roll(source.detach(), 1, 3) for source in sources]
    identity = torch.cat([photometric(target, source) for source in moved])
    # The authors' loss: the least of all four, whose gradient reaches the warped sources only
    # where one of them is the least.
    everything, which = torch.cat([identity, errors]).min(0)
    everything.mean().backward()
    return {
        "photometric": errors[0],
        "photometric_gradient": gradient,
        "reprojection_errors": errors,
        "identity_errors": identity,
        "minimum": errors.min(0).values,
        "automask": which >= 2,
        "minimum_gradient": torch.stack([s.grad[0].permute(1, 2, 0) for s in sources]),
    }


def census_scale(height: int, width: int) -> np.ndarray:
    """All neighbors over those inside the image: the sum over a full patch from a cut one."""
    side = [
        [min(n, i + RADIUS + 1) - max(0, i - RADIUS) for i in range(n)] for n in (height, width)
    ]
    return ((2 * RADIUS + 1) ** 2 - 1) / (np.outer(*side) - 1)


def census_error(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = (255 * (x @ [0.299, 0.587, 0.114]) for x in (a, b))
    height, width = a.shape
    out = np.zeros((height, width))
    for y, x in np.ndindex(height, width):
        for v in range(max(0, y - RADIUS), min(height, y + RADIUS + 1)):
            for u in range(max(0, x - RADIUS), min(width, x + RADIUS + 1)):
                ta, tb = (
                    (i[v, u] - i[y, x]) / np.sqrt(SOFTNESS + (i[v, u] - i[y, x]) ** 2)
                    for i in (a, b)
                )
                out[y, x] += (ta - tb) ** 2 / (THRESHOLD + (ta - tb) ** 2)
    return out * census_scale(height, width)


def census_gradient(a: np.ndarray, b: np.ndarray, cotangent: np.ndarray) -> np.ndarray:
    """Gradient of `(cotangent · error).sum()` to `b`, by torch's autograd of the same loops."""
    luma = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    tensor = torch.from_numpy(b).requires_grad_()
    a, b = 255 * torch.from_numpy(a) @ luma, 255 * tensor @ luma
    height, width = a.shape
    cotangent = cotangent * census_scale(height, width)
    total = torch.zeros((), dtype=torch.float64)
    for y, x in np.ndindex(height, width):
        top, left = max(0, y - RADIUS), max(0, x - RADIUS)
        window = (slice(top, y + RADIUS + 1), slice(left, x + RADIUS + 1))
        da, db = a[window] - a[y, x], b[window] - b[y, x]
        d = da / torch.sqrt(SOFTNESS + da**2) - db / torch.sqrt(SOFTNESS + db**2)
        total = total + cotangent[y, x] * (d**2 / (THRESHOLD + d**2)).sum()
    total.backward()
    return tensor.grad.numpy()


def smoothness(field, image, order, edge_weight, edge, normalize, penalty, cross) -> float:
    """Pixel by pixel, one direction after the other."""
    field = field / (field.mean((0, 1)) + 1e-7) if normalize else field
    total = 0.0
    for swap in (False, True):  # derivatives along x, then along y
        f, i = (x.swapaxes(0, 1) if swap else x for x in (field, image))
        terms = []
        for y, x in np.ndindex(f.shape[0], f.shape[1] - order):
            change = edge_weight * (i[y, x + order] - i[y, x])
            strength = np.abs(change) if edge == "exponential" else change**2
            if order == 1:
                derivative = f[y, x + 1] - f[y, x]
            else:
                derivative = f[y, x + 2] - 2 * f[y, x + 1] + f[y, x]
            terms.append(np.exp(-strength.mean()) * penalty(derivative).mean())
        total += np.mean(terms)
    if cross:
        mixed = field[1:, 1:] - field[1:, :-1] - field[:-1, 1:] + field[:-1, :-1]
        total += 2 * penalty(mixed).mean()
    return total


def sample(image: np.ndarray, x: float, y: float) -> np.ndarray | None:
    """Bilinear interpolation of `[H, W, ...]`; None outside the outermost pixel centers."""
    height, width = image.shape[:2]
    if not (0 <= x <= width - 1 and 0 <= y <= height - 1):
        return None
    i, j = min(int(x), width - 2), min(int(y), height - 2)
    u, v = x - i, y - j
    upper = (1 - u) * image[j, i] + u * image[j, i + 1]
    return (1 - v) * upper + v * ((1 - u) * image[j + 1, i] + u * image[j + 1, i + 1])


def occlusion(forward: np.ndarray, backward: np.ndarray) -> dict[str, np.ndarray]:
    height, width = forward.shape[:2]
    brox = np.zeros((height, width), bool)
    confidence = np.zeros((height, width))
    consistency = np.full((height, width), np.nan)
    arrivals = np.zeros((height, width))
    for y, x in np.ndindex(height, width):
        f = forward[y, x]
        b = sample(backward, x + f[0], y + f[1])
        if b is not None:
            squared = ((f + b) ** 2).sum()
            brox[y, x] = squared < 0.01 * ((f**2).sum() + (b**2).sum()) + 0.5
            confidence[y, x] = np.exp(-squared / (0.03**2 * (height**2 + width**2)))
            consistency[y, x] = (((f + b) ** 2 + 1e-6) ** 0.45).mean()
        u, v = x + backward[y, x, 0], y + backward[y, x, 1]
        for j, i in np.ndindex(height, width):
            arrivals[j, i] += max(0, 1 - abs(u - i)) * max(0, 1 - abs(v - j))
    return {
        "brox": brox,
        "confidence": confidence,
        "consistency": consistency,
        "wang": np.clip(arrivals, 0, 1),
        "wang_hard": arrivals >= 0.75,
    }


def disparity_consistency(left: np.ndarray, right: np.ndarray) -> list[np.ndarray]:
    errors = []
    for here, there, sign in ((left, right, -1), (right, left, 1)):
        error = np.full(here.shape, np.nan)
        for y, x in np.ndindex(here.shape):
            seen = sample(there, x + sign * here[y, x], y)
            if seen is not None:
                error[y, x] = abs(here[y, x] - seen)
        errors.append(error)
    return errors


def sequence(flows: np.ndarray, target: np.ndarray) -> np.ndarray:
    total = np.zeros(target.shape[:-1])
    for i, flow in enumerate(flows):
        total += 0.8 ** (len(flows) - 1 - i) * np.abs(flow - target).mean(-1)
    return total


def color_weights(counts: np.ndarray, gamma: float, alpha: float) -> np.ndarray:
    prior = counts / counts.sum()
    weights = ((1 - gamma) * prior + gamma / len(prior)) ** -alpha
    return weights / (prior * weights).sum()


def main(path: str) -> None:
    left, right, _ = data.stereo_motorcycle()
    window = np.s_[200:340:10, 300:460:10]  # 14 x 16
    pixels = np.stack([left[window], right[window], left[203:343:10, 304:464:10]])
    a, b, c = pixels.astype(np.float64) / 255
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:14, :16]
    forward = np.stack([3 * np.sin(y / 9) + 1.3, 2 * np.cos(x / 8)], -1)
    backward = -forward + 0.9 * np.sin(0.7 * x + y)[..., None]
    disparity = np.stack([2.2 + np.sin(x / 3 + k + y / 5) for k in (0, 0.5)])
    flows = rng.normal(size=(3, 14, 16, 2))
    cotangent = rng.random((14, 16))
    inputs = {
        "pixels": pixels,
        "forward": forward,
        "backward": backward,
        "disparity": disparity,
        "flows": flows,
        "cotangent": cotangent,
        "counts": rng.integers(0, 1000, 30).astype(float) ** 2,
    }
    inputs = {
        name: x if x.dtype == np.uint8 else x.astype(np.float32) for name, x in inputs.items()
    }
    f64 = {name: x.astype(np.float64) for name, x in inputs.items()}
    left_error, right_error = disparity_consistency(*f64["disparity"])
    robust = lambda x: np.sqrt(x**2 + 1e-6)  # noqa: E731
    d, flow = f64["disparity"][0][..., None], f64["forward"]
    values = {
        **photometric_values(a, b, c),
        "census": census_error(a, b),
        "census_gradient": census_gradient(a, b, f64["cotangent"]),
        **occlusion(f64["forward"], f64["backward"]),
        "left_error": left_error,
        "right_error": right_error,
        "sequence": sequence(f64["flows"], f64["forward"]),
        "color": color_weights(f64["counts"], 0.5, 1.0),
        "color_strong": color_weights(f64["counts"], 0.1, 0.7),
        "charbonnier": (flow**2 + 1e-6) ** 0.45,
        "robust_l1": robust(flow),
        "robust_power": (np.abs(flow) + 0.01) ** 0.4,
        "smoothness": np.array(
            [  # field, order, λ, edge, normalized, penalty, cross terms: as in the test
                smoothness(d, a, 1, 1.0, "exponential", False, np.abs, False),
                smoothness(d, a, 1, 1.0, "exponential", True, np.abs, False),
                smoothness(flow, a, 1, 150.0, "exponential", False, robust, False),
                smoothness(flow, a, 2, 10.0, "gaussian", False, robust, False),
                smoothness(d, a, 2, 0.0, "exponential", False, np.abs, True),
            ]
        ),
    }
    # "minimum" and "automask" are exact decisions; keep booleans, round the rest to float32.
    values = {k: v.detach() if isinstance(v, torch.Tensor) else v for k, v in values.items()}
    values = {name: np.asarray(value) for name, value in values.items()}
    values = {k: v if v.dtype == bool else v.astype(np.float32) for k, v in values.items()}
    np.savez_compressed(path, **inputs, **values)


if __name__ == "__main__":
    main(sys.argv[1])
