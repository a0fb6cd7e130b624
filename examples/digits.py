"""Train a small image transformer on 8x8 images of digits twice, with full attention and with SCRAM, and compare.

    python examples/digits.py                                  classify the digits
    python examples/digits.py --task next-pixel                predict each pixel from those before it
    python examples/digits.py --epochs 2 --seeds 1 --k 4 --expand 1

Every pixel is a token: 64 of them. Both networks are the same but for the layer inside their attention, begin with the
same weights and see the same batches. Where full attention weighs all 64 keys of a query, SCRAM weighs its k best and
the (2 b + 1)^2 keys around each, k and b being --k and --expand. As the layers have no weights of their own, those
trained with one work with the other: the last line of the table puts full attention into the networks that SCRAM
trained.

Each of the two tasks takes three to four minutes of one core. SCRAM is the slower one here, by far: it is made for
images of so many pixels that full attention does not fit, and 64 keys are nothing to full attention.

Needs scikit-learn, whose wheel brings the images (1,797 of them; 17 gray levels; no download).
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

from patchattn import MultiheadPatchAttention2d, ScramAttention
from patchattn.baselines import FullAttention

SIZE, LEVELS, CLASSES = (8, 8), 17, 10
EMBED, HEADS, BLOCKS = 32, 2, 2
BATCH, LEARNING_RATE, WEIGHT_DECAY = 16, 4e-3, 0.05


# The network.


class ChannelNorm(nn.LayerNorm):
    """Layer normalization of the channels of every pixel by itself: no pixel learns of another here."""

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image.movedim(1, -1)).movedim(-1, 1)


class Block(nn.Module):
    """A pre-norm transformer block for images."""

    def __init__(self, attention: dict[str, Any]) -> None:
        super().__init__()
        self.attend = nn.Sequential(ChannelNorm(EMBED), MultiheadPatchAttention2d(EMBED, HEADS, **attention))
        self.think = nn.Sequential(
            ChannelNorm(EMBED), nn.Conv2d(EMBED, 4 * EMBED, 1), nn.GELU(), nn.Conv2d(4 * EMBED, EMBED, 1)
        )

    def forward(self, image: Tensor) -> Tensor:
        image = image + self.attend(image)
        return image + self.think(image)


class Transformer(nn.Module):
    """Blocks on top of a learned embedding of every position."""

    def __init__(self, attention: dict[str, Any]) -> None:
        super().__init__()
        self.position = nn.Parameter(0.3 * torch.randn(1, EMBED, *SIZE))
        self.blocks = nn.Sequential(*(Block(attention) for _ in range(BLOCKS)), ChannelNorm(EMBED))

    def forward(self, embedded: Tensor) -> Tensor:
        return self.blocks(embedded + self.position)


class Classifier(nn.Module):
    """Images `(B, 1, 8, 8)`, standardized, to scores of the ten digits, `(B, 10)`."""

    def __init__(self, attention: dict[str, Any]) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, EMBED, 3, padding=1)  # a token tells of a pixel and of those around it
        self.transformer = Transformer(attention)
        self.score = nn.Linear(EMBED, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        return self.score(self.transformer(self.embed(image)).mean((2, 3)))


class PixelModel(nn.Module):
    """Gray levels `(B, 8, 8)` to scores of the gray levels of every pixel, `(B, 17, 8, 8)`, from the pixels before it.

    The image is shifted by one pixel, row by row, so that where a pixel is predicted the one before it is seen; the
    attention must be causal, and sees all the earlier ones.
    """

    def __init__(self, attention: dict[str, Any]) -> None:
        super().__init__()
        self.embed = nn.Embedding(LEVELS + 1, EMBED)  # the last stands for the beginning
        self.transformer = Transformer({**attention, "is_causal": True})
        self.score = nn.Conv2d(EMBED, LEVELS, 1)

    def forward(self, levels: Tensor) -> Tensor:
        before = functional.pad(levels.flatten(1), (1, 0), value=LEVELS)[:, :-1].view_as(levels)
        return self.score(self.transformer(self.embed(before).movedim(-1, 1)))


# The tasks.


@dataclass(frozen=True)
class Task:
    """What is learned, from which images, and how its success is told."""

    network: Callable[[dict[str, Any]], nn.Module]
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    measure: str
    result: Callable[[Tensor, Tensor], float]
    """From scores and targets of the test images."""


def make_task(name: str) -> Task:
    """The digits with a fixed split: 1,347 images to learn from, 450 to be judged by."""
    digits = load_digits()
    parts = train_test_split(digits.images, digits.target, test_size=450, random_state=0, stratify=digits.target)
    train, test, train_label, test_label = (torch.as_tensor(part) for part in parts)
    if name == "next-pixel":
        train, test = train.long(), test.long()
        return Task(PixelModel, (train, train), (test, test), "bits per pixel", bits_per_pixel)
    mean, deviation = train.mean(), train.std()
    train, test = (((part - mean) / deviation).float().unsqueeze(1) for part in (train, test))
    return Task(Classifier, (train, train_label), (test, test_label), "test accuracy in %", accuracy)


def accuracy(score: Tensor, target: Tensor) -> float:
    return 100 * (score.argmax(1) == target).double().mean().item()


def bits_per_pixel(score: Tensor, target: Tensor) -> float:
    return functional.cross_entropy(score.double(), target).item() / math.log(2)


# Training.


def batches(count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """One epoch of shuffled indices."""
    yield from torch.randperm(count, generator=generator).split(BATCH)


def train(network: nn.Module, task: Task, epochs: int, seed: int) -> None:
    """AdamW on cross-entropy, one cycle of the learning rate."""
    image, target = task.train
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, epochs=epochs, steps_per_epoch=math.ceil(len(image) / BATCH), pct_start=0.2
    )
    network.train()
    for _ in range(epochs):
        for chosen in batches(len(image), generator):
            loss = functional.cross_entropy(network(image[chosen]), target[chosen])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()


@torch.no_grad()
def evaluate(network: nn.Module, task: Task) -> float:
    network.eval()
    image, target = task.test
    return task.result(torch.cat([network(part) for part in image.split(BATCH)]), target)


def build(task: Task, attention: dict[str, Any], seed: int) -> nn.Module:
    """The network with the weights of a seed, which are the same whatever the attention."""
    torch.manual_seed(seed)
    return task.network(attention)


# The comparison.


@dataclass
class Row:
    """A line of the table."""

    name: str
    results: list[float]
    seconds: list[float]

    def __str__(self) -> str:
        mean, spread = statistics.mean(self.results), statistics.pstdev(self.results)
        seconds = f"{statistics.mean(self.seconds):.1f}" if self.seconds else ""
        each = ", ".join(f"{result:.2f}" for result in self.results)
        return f"{self.name:34}{f'{mean:.2f} ± {spread:.2f}':>20}{seconds:>10}   {each}"


def compare(task: Task, epochs: int, seeds: int, k: int, expand: int) -> None:
    """Train with both layers, for every seed, and print the table."""
    full = {"attention": FullAttention, "patch_size": 1, "similarity": "scaled_dot"}
    scram = {"attention": ScramAttention, "k": k, "expand": expand}
    keys = math.prod(SIZE)
    with_full = Row(f"full attention (all {keys} keys)", [], [])
    with_scram = Row(f"SCRAM (k = {k}, expand = {expand})", [], [])
    swapped = Row("  its weights with full attention", [], [])
    for seed in range(seeds):
        for row, attention in ((with_full, full), (with_scram, scram)):
            network = build(task, attention, seed)
            start = time.perf_counter()
            train(network, task, epochs, seed)
            row.seconds.append(time.perf_counter() - start)
            row.results.append(evaluate(network, task))
            print(f"seed {seed}, {row.name}: {row.results[-1]:.2f} in {row.seconds[-1]:.0f} s", flush=True)
        other = build(task, full, seed)
        other.load_state_dict(network.state_dict())
        swapped.results.append(evaluate(other, task))
    print()
    print(f"{'trained with':34}{task.measure:>20}{'seconds':>10}   of each seed")
    print(*(with_full, with_scram, swapped), sep="\n")


def at_least(least: int) -> Callable[[str], int]:
    """A type of numbers on the command line."""

    def whole_number(text: str) -> int:
        number = int(text)
        if number < least:
            raise argparse.ArgumentTypeError(f"expected an integer of at least {least}, got {number}")
        return number

    return whole_number


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=("classify", "next-pixel"), default="classify")
    parser.add_argument("--epochs", type=at_least(1), default=8, help="passes over the images (%(default)s)")
    parser.add_argument("--seeds", type=at_least(1), default=3, help="trainings with each layer (%(default)s)")
    parser.add_argument("--k", type=at_least(1), default=8, help="best keys of a query (%(default)s)")
    parser.add_argument("--expand", type=at_least(0), default=0, help="reach of the keys around each (%(default)s)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # tensors are tiny: threads gain nothing, and on a busy machine wait for each other
    compare(make_task(options.task), options.epochs, options.seeds, options.k, options.expand)
    return 0


if __name__ == "__main__":
    sys.exit(main())
