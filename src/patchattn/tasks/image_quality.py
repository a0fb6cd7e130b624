"""Full-reference image quality: mean squared error, PSNR and SSIM."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

__all__ = ["mean_squared_error", "peak_signal_noise_ratio", "structural_similarity"]

SIGMA, RADIUS = 1.5, 5
"""Gaussian window of SSIM (Wang et al. 2004): standard deviation and radius in pixels."""
K1, K2 = 0.01, 0.03
"""Constants of SSIM that keep its quotients stable, relative to the data range."""


def mean_squared_error(output: Float[Tensor, "*size"], target: Float[Tensor, "*size"]) -> float:
    """Mean squared error over all elements.

    Example:
        >>> mean_squared_error(torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.tensor([0.0, 1.0, 2.0, 2.0]))
        0.25
    """
    difference = output.reshape(-1) - target.reshape(-1)
    return float((difference * difference).sum(0) / target.numel())


def peak_signal_noise_ratio(
    output: Float[Tensor, "*size"], target: Float[Tensor, "*size"], *, data_range: float = 1.0
) -> float:
    """Peak signal-to-noise ratio (PSNR) in dB, 10 log10(data_range^2 / MSE); infinite if all elements are equal.

    Args:
        output: of any shape.
        target: likewise.
        data_range: difference between the largest and smallest possible value.

    Example:
        >>> round(peak_signal_noise_ratio(torch.tensor([0.0, 0.5]), torch.tensor([0.1, 0.4])), 3)
        20.0
    """
    error = (output - target).pow(2).sum() / target.numel()
    return float((2 * torch.tensor(data_range).log() - error.log()) * (10 / torch.tensor(10.0).log()))


def structural_similarity(
    output: Float[Tensor, "batch channels height width"],
    target: Float[Tensor, "batch channels height width"],
    *,
    data_range: float = 1.0,
) -> float:
    """Structural similarity index (SSIM, Wang et al. 2004), with a Gaussian window of 11 x 11 and sigma 1.5.

    The mean over all pixels, with images reflected at their borders, in float64. It is scikit-image's
    `structural_similarity` with `gaussian_weights=True, use_sample_covariance=False` of images padded by 5 reflected
    pixels (without padding, scikit-image leaves out the pixels at the border).

    Args:
        output: of at least 6 x 6 pixels.
        target: likewise.
        data_range: difference between the largest and smallest possible value.

    Raises:
        ValueError: the images are too small to be reflected.

    Example:
        >>> image = torch.rand(1, 3, 16, 16)
        >>> structural_similarity(image, image)
        1.0
    """
    if min(output.shape[2:]) <= RADIUS:
        raise ValueError(f"output: got {tuple(output.shape[2:])} pixels; expected at least 6 x 6.")
    a, b = (image.double().flatten(0, 1)[:, None] for image in (output, target))
    mean_a, mean_b, mean_aa, mean_bb, mean_ab = (_windowed(image) for image in (a, b, a * a, b * b, a * b))
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    covariance = mean_ab - mean_a * mean_b
    variances = mean_aa - mean_a**2 + mean_bb - mean_b**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return float((luminance * (2 * covariance + c2) / (variances + c2)).mean())


def _windowed(image: Tensor) -> Tensor:
    """Gaussian-weighted mean around each pixel, with reflected borders."""
    image = F.pad(image, (RADIUS,) * 4, mode="reflect")
    place = torch.arange(-RADIUS, RADIUS + 1, dtype=image.dtype, device=image.device)
    weights = (-(place**2) / (2 * SIGMA**2)).exp()
    weights = weights / weights.sum()
    return F.conv2d(F.conv2d(image, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))
