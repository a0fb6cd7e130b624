"""Offsets drawn as optical flow."""

from __future__ import annotations

import pytest
import torch

from patchattn.tasks.flow_image import flow_image


def color_of(row: int, column: int, largest: float = 10.0) -> list[float]:
    offsets = torch.tensor([row, column]).view(2, 1, 1)
    return flow_image(offsets, largest=largest).color.flatten().tolist()


@pytest.mark.parametrize(
    ("row", "column", "expected"),
    [
        (0, 0, [1, 1, 1]),
        (0, 10, [1, 0, 0]),
        (10, 0, [0.5, 1, 0]),
        (0, -10, [0, 1, 1]),
        (-10, 0, [0.5, 0, 1]),
        (0, 5, [1, 0.5, 0.5]),
        (0, 1000, [1, 0, 0]),
    ],
)
def test_known_colors(row: int, column: int, expected: list[float]) -> None:
    assert color_of(row, column) == pytest.approx(expected, abs=1e-6)


def test_unmatched_is_black() -> None:
    image = flow_image(torch.zeros(2, 2, 2), matched=torch.tensor([[True, False], [True, True]]))
    assert image.color[0, :, 0, 1].tolist() == [0, 0, 0]
    assert image.color[0, :, 0, 0].tolist() == [1, 1, 1]
    nothing = flow_image(torch.zeros(2, 2, 2), matched=torch.zeros(2, 2, dtype=torch.bool))
    assert nothing.color.max() == 0


def test_stray_matches_do_not_pale_the_rest() -> None:
    offsets = torch.zeros(2, 100, 100)
    offsets[1] = 8
    offsets[1, :30] = 5000
    color = flow_image(offsets).color
    assert color[0, :, 50, 50].tolist() == pytest.approx([1, 0.5, 0.5])
    assert color[0, :, 0, 0].tolist() == pytest.approx([1, 0, 0])


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"offsets: got shape \(3, 4, 4\), expected \(2, height, width\)"):
        flow_image(torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match=r"matched: got shape \(4, 5\), expected \(4, 4\)"):
        flow_image(torch.zeros(2, 4, 4), matched=torch.ones(4, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"largest: got 0, expected a length in pixels above 0"):
        flow_image(torch.zeros(2, 4, 4), largest=0)
