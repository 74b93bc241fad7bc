"""Golden values of tests/ops/test_image.py on a stereo pair of photographs.

    python experiments/golden/image.py tests/ops/golden/image.npz

needs torch, kornia, OpenCV and scikit-image, and not this package. Structural similarity comes
from all three of torch (the 3 x 3 box of monodepth2), kornia and scikit-image; resizing and blur
from torch and OpenCV; the census transform from plain loops in float64.
"""

import sys

import cv2
import kornia
import numpy as np
import torch
import torch.nn.functional as F
from skimage import data
from skimage.metrics import structural_similarity

RADIUS = 2


def to_torch(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].contiguous()


def to_numpy(image: torch.Tensor) -> np.ndarray:
    return image[0].permute(1, 2, 0).detach().numpy()


def box_ssim(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Means and covariances over 3 x 3 pixels of the reflected images."""
    mean = lambda x: F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, 1)  # noqa: E731
    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = mean(a**2) - mean_a**2, mean(b**2) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    numerator = (2 * mean_a * mean_b + 0.01**2) * (2 * covariance + 0.03**2)
    return numerator / ((mean_a**2 + mean_b**2 + 0.01**2) * (var_a + var_b + 0.03**2))


def box_ssim_gradients(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of the sum of squares of the similarity: every pixel has another cotangent."""
    tensors = [to_torch(x.astype(np.float64)).requires_grad_() for x in (a, b)]
    (box_ssim(*tensors) ** 2).sum().backward()
    return tuple(to_numpy(x.grad) for x in tensors)


def scikit_ssim(a: np.ndarray, b: np.ndarray, border: int, **window) -> np.ndarray:
    """Similarity where the window lies inside the image; scikit-image pads otherwise."""
    _, full = structural_similarity(
        a, b, channel_axis=-1, data_range=1.0, use_sample_covariance=False, full=True, **window
    )
    return full[border:-border, border:-border]


def census(image: np.ndarray) -> np.ndarray:
    gray = 255 * (image.astype(np.float64) @ [0.299, 0.587, 0.114])
    height, width = gray.shape
    out = np.zeros((height, width, 2 * RADIUS + 1, 2 * RADIUS + 1))
    for y, x in np.ndindex(height, width):
        for j, i in np.ndindex(out.shape[2:]):
            v, u = y + j - RADIUS, x + i - RADIUS
            if 0 <= v < height and 0 <= u < width:
                difference = gray[v, u] - gray[y, x]
                out[y, x, j, i] = difference / np.sqrt(0.81 + difference**2)
    return out.reshape(height, width, -1)


def main(path: str) -> None:
    left, right, _ = data.stereo_motorcycle()
    pixels = [image[200:360:10, 300:500:10] for image in (left, right)]  # 16 x 20
    a, b = (image.astype(np.float32) / 255 for image in pixels)
    ta, tb = to_torch(a), to_torch(b)
    bilinear = lambda size: to_numpy(F.interpolate(ta, size, mode="bilinear"))  # noqa: E731
    values = {
        "ssim_torch_box": to_numpy(box_ssim(ta, tb)),
        "ssim_scikit_box": scikit_ssim(a, b, 1, win_size=3),
        "ssim_kornia_gaussian": to_numpy(kornia.metrics.ssim(ta, tb, 11)),
        "ssim_scikit_gaussian": scikit_ssim(a, b, 5, gaussian_weights=True, sigma=1.5),
        "bilinear_twice": bilinear((32, 40)),
        "bilinear_odd": bilinear((27, 33)),
        "bilinear_smaller": bilinear((11, 13)),
        "area_half": cv2.resize(a, (10, 8), interpolation=cv2.INTER_AREA),
        "area_odd": cv2.resize(a, (13, 11), interpolation=cv2.INTER_AREA),
        "blur": cv2.GaussianBlur(a, (7, 7), 1.2, borderType=cv2.BORDER_REFLECT_101),
        "gray": cv2.cvtColor(a, cv2.COLOR_RGB2GRAY),
        "census": census(a),
    }
    values["ssim_gradient_a"], values["ssim_gradient_b"] = box_ssim_gradients(a, b)
    values = {name: value.astype(np.float32) for name, value in values.items()}
    np.savez_compressed(path, a=pixels[0], b=pixels[1], **values)


if __name__ == "__main__":
    main(sys.argv[1])
