"""Frames and pairs of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from patchattn.training.color_augmentation import augment_colors
from patchattn.training.frames import FrameSequence, read_sequences
from patchattn.training.pairs import draw_pairs


def test_frames_are_read_in_order_at_one_size(data: Path) -> None:
    told: list[tuple[int, int]] = []
    sequences = read_sequences(data, size=24, progress=lambda done, total: told.append((done, total)))
    assert [(sequence.name, tuple(sequence.frames.shape)) for sequence in sequences] == [
        ("astronaut", (3, 3, 24, 24)),
        ("coffee", (3, 3, 24, 24)),
    ]
    assert told == [(n, 6) for n in range(1, 7)]
    assert sequences[0].frames.float().std() > 20


def test_unreadable_files_are_named(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(data, folder)
    (folder / "coffee" / "00001.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"cannot read .*coffee/00001.png as an image"):
        read_sequences(folder, size=24)
    told: list[str] = []
    sequences = read_sequences(folder, size=24, on_error="skip", warn=told.append)
    assert [len(sequence) for sequence in sequences] == [3, 2]
    assert len(told) == 1
    assert "coffee/00001.png" in told[0]
    (folder / "coffee" / "00002.png").unlink()
    sequences = read_sequences(folder, size=24, on_error="skip", warn=told.append)
    assert [sequence.name for sequence in sequences] == ["astronaut"]
    assert "1 readable frame(s)" in told[-1]


def test_folders_without_frames(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="data: there is no folder"):
        read_sequences(tmp_path / "none", size=24)
    with pytest.raises(ValueError, match="holds no folder with two or more frames"):
        read_sequences(tmp_path, size=24)
    with pytest.raises(ValueError, match="on_error: got 'ignore'; allowed are 'stop', 'skip'"):
        read_sequences(tmp_path, size=24, on_error="ignore")


def scenes() -> list[FrameSequence]:
    """Every pixel says which frame and place it is of."""
    place = torch.arange(64).view(8, 8).expand(3, 8, 8)
    return [
        FrameSequence("two", torch.stack([place, place + 64]).to(torch.uint8)),
        FrameSequence("three", torch.stack([place + 64 * n for n in (1, 2, 3)]).to(torch.uint8)),
    ]


def test_a_pair_is_two_frames_of_one_sequence_cut_alike() -> None:
    target, reference = (
        side.mul(255).round().long()[:, 0] for side in draw_pairs(scenes(), range(200), seed=3, crop=5)
    )
    assert target.shape == (200, 5, 5)
    assert torch.equal(target % 64, reference % 64)
    frames = {(int(a), int(b)) for a, b in zip(target[:, 0, 0] // 64, reference[:, 0, 0] // 64, strict=True)}
    assert frames == {(0, 1), (1, 0), (1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)}
    assert len(set((target[:, 0, 0] % 64).tolist())) == 16


def test_an_item_is_the_same_wherever_it_is_drawn() -> None:
    whole = draw_pairs(scenes(), range(10), seed=0)
    parts = [draw_pairs(scenes(), items, seed=0) for items in (range(4), range(4, 10))]
    for n in range(2):
        assert torch.equal(whole[n], torch.cat([part[n] for part in parts]))
    assert not torch.equal(whole[0], draw_pairs(scenes(), range(10), seed=1)[0])


def test_recolored_pairs_keep_their_grays_and_agree() -> None:
    frames = torch.rand(4, 3, 5, 6) * 0.2 + 0.4
    target, reference = augment_colors(frames, frames.flip(3), [5, 6, 7, 5])
    torch.testing.assert_close(reference, target.flip(3))  # alike
    torch.testing.assert_close(target.mean(1), frames.mean(1))
    assert not torch.allclose(target, frames, atol=0.01)
    alone, _ = augment_colors(frames[3:], frames[3:], [5])
    torch.testing.assert_close(alone, target[3:])  # a function of the item's number
    strength = (target - target.mean(1, keepdim=True)).norm(dim=1) / (frames - frames.mean(1, keepdim=True)).norm(dim=1)
    for item in strength:
        assert item.min() >= 0.5 - 1e-4
        assert item.max() <= 2 + 1e-4
        torch.testing.assert_close(item, item[:1, :1].expand_as(item), rtol=1e-3, atol=1e-3)  # a rotation
