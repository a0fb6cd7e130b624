"""The matches and votes that the field view shows are those of the layer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from patchattn import match, patch_attention
from patchattn.demo.pixel_attention import attention_at_pixel, write_field
from patchattn.tasks.images import Image

SETTINGS = {"k": 3, "patch_size": 3, "similarity": "l2", "method": "exact", "temperature": 0.5}


def test_matches_and_votes_are_those_of_the_layer(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = (Image(torch.rand(1, 3, 10, 12, generator=generator)) for _ in range(2))
    written = write_field((one, other), tmp_path, SETTINGS, lambda stage: None)
    assert {path.name for path in tmp_path.iterdir()} == {"field.pt", "query.png", "key.png", "flow.png"}
    field = match(one.color, other.color, k=3, patch_size=3, method="exact")
    shared = {"patch_size": 3, "temperature": 0.5}
    output = patch_attention(one.color, other.color, other.color, field=field, aggregate=True, **shared)
    for row, column in ((4, 5), (0, 0), (9, 11)):
        attention = attention_at_pixel(Path(written["field"]), row, column)
        weights = (field.similarity[0, 0, :, row, column] / 0.5).softmax(0)
        everything = field_of_all(one, other)[0, 0, :, row, column] / 0.5
        assert [weight for *_, weight in attention["matches"]] == pytest.approx(weights.tolist(), abs=1e-4)
        assert attention["mass"] == pytest.approx(float(everything.softmax(0)[:3].sum()), abs=1e-4)
        voted = sum(weight * other.color[0, :, int(y), int(x)] for y, x, weight in attention["votes"])
        torch.testing.assert_close(voted, output[0, :, row, column], atol=0.02, rtol=0)


def field_of_all(one: Image, other: Image) -> torch.Tensor:
    """The similarities of every pixel to all 120, best first."""
    return match(one.color, other.color, k=120, patch_size=3, method="exact").similarity
