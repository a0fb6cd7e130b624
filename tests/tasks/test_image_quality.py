"""MSE, PSNR and SSIM: known values, and those of scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import skimage.data
import skimage.metrics
import torch
from torch import Tensor

from patchattn.tasks.image_quality import mean_squared_error, peak_signal_noise_ratio, structural_similarity


@pytest.fixture(scope="module", params=[1, 3], ids=["gray", "rgb"])
def pair(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    image = torch.tensor(skimage.data.astronaut()[100:150, 180:245]).permute(2, 0, 1)[None, : request.param] / 255
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    return (image + 0.1 * noise).clamp(0, 1), image


def arrays(pair: tuple[Tensor, Tensor]) -> list[np.ndarray]:
    return [image[0].permute(1, 2, 0).double().numpy() for image in pair]


def test_known_values() -> None:
    output, target = torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.tensor([0.0, 1.0, 2.0, 1.0])
    assert mean_squared_error(output, target) == 1.0
    assert peak_signal_noise_ratio(output, target) == 0.0
    assert peak_signal_noise_ratio(output, target, data_range=10.0) == pytest.approx(20.0, rel=1e-6)
    assert peak_signal_noise_ratio(output, output) == math.inf


def test_psnr_is_that_of_scikit_image(pair: tuple[Tensor, Tensor]) -> None:
    output, target = arrays(pair)
    mse = skimage.metrics.mean_squared_error(target, output)
    assert mean_squared_error(*pair) == pytest.approx(mse, rel=1e-6)
    for data_range in (1.0, 255.0):
        psnr = skimage.metrics.peak_signal_noise_ratio(target, output, data_range=data_range)
        assert peak_signal_noise_ratio(*pair, data_range=data_range) == pytest.approx(psnr, rel=1e-6)


@pytest.mark.parametrize("data_range", [1.0, 255.0])
def test_ssim_is_that_of_scikit_image(pair: tuple[Tensor, Tensor], data_range: float) -> None:
    reflected = ((5, 5), (5, 5), (0, 0))
    output, target = (np.pad(data_range * image, reflected, mode="reflect") for image in arrays(pair))
    expected = skimage.metrics.structural_similarity(
        output, target, data_range=data_range, channel_axis=2, gaussian_weights=True, use_sample_covariance=False
    )
    ours = structural_similarity(data_range * pair[0].double(), data_range * pair[1].double(), data_range=data_range)
    assert ours == pytest.approx(expected, abs=1e-12)
    assert 0.3 < ours < 0.99


def test_ssim_of_constants() -> None:
    """Without structure, what is left is the comparison of brightness."""
    a, b = torch.full((1, 1, 12, 15), 0.2), torch.full((1, 1, 12, 15), 0.6)
    assert structural_similarity(a, b) == pytest.approx((2 * 0.12 + 1e-4) / (0.04 + 0.36 + 1e-4), rel=1e-6)


def test_ssim_needs_pixels_to_reflect() -> None:
    with pytest.raises(ValueError, match=r"output: got \(5, 20\) pixels; expected at least 6 x 6"):
        structural_similarity(torch.zeros(1, 1, 5, 20), torch.zeros(1, 1, 5, 20))
