"""Windows by slices: what pooling gives."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from patchattn.tasks.windows import running_maximum, running_sum


@pytest.mark.parametrize("side", range(1, 14))
def test_windows_are_those_of_pooling(side: int) -> None:
    image = torch.randn(2, 3, 15, 17, dtype=torch.float64)
    for dim, window in ((2, (side, 1)), (3, (1, side))):
        maximum = functional.max_pool2d(image, window, stride=1)
        assert torch.equal(running_maximum(image, side, dim), maximum)
        total = functional.avg_pool2d(image, window, stride=1) * side
        torch.testing.assert_close(running_sum(image, side, dim), total)
        mask = image > 1
        assert torch.equal(running_maximum(mask, side, dim), functional.max_pool2d(mask.double(), window, stride=1) > 0)


def test_nothing_is_written_over() -> None:
    image = torch.rand(1, 1, 9, 9)
    given = image.clone()
    for side in (1, 2, 5):
        running_maximum(image, side, 2)
        running_sum(image, side, 3)
    assert torch.equal(image, given)
