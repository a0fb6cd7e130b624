"""The examples run, and say what they are meant to say."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from patchattn import ScramAttention
from patchattn.baselines import FullAttention

pytestmark = pytest.mark.usefixtures("one_thread")

DIGITS = Path(__file__).parents[1] / "examples" / "digits.py"
FULL: dict[str, Any] = {"attention": FullAttention, "patch_size": 1, "similarity": "scaled_dot"}
SCRAM: dict[str, Any] = {"attention": ScramAttention, "k": 2, "expand": 1}


@pytest.fixture(scope="module")
def digits() -> ModuleType:
    """The example as a module. Its data classes look themselves up where modules are kept."""
    spec = importlib.util.spec_from_file_location("digits_example", DIGITS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["digits_example"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("task", "measure"), [("classify", r"test accuracy in %"), ("next-pixel", r"bits per pixel")])
def test_digits_runs_and_prints_its_table(task: str, measure: str) -> None:
    command = [
        sys.executable,
        str(DIGITS),
        "--task",
        task,
        "--epochs",
        "1",
        "--seeds",
        "1",
        "--k",
        "2",
        "--expand",
        "1",
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    table = done.stdout.split("\n\n")[-1].splitlines()
    assert re.search(measure, table[0])
    names = ["full attention (all 64 keys)", "SCRAM (k = 2, expand = 1)", "  its weights with full attention"]
    for line, name in zip(table[1:], names, strict=True):
        assert line.startswith(name)
        value = float(line[len(name) :].split("±")[0])
        # A tenth of all guesses would be right; 17 equally likely levels are 4.09 bits.
        assert 10 < value <= 100 if task == "classify" else 0 < value < 4.09


def test_digits_says_what_is_wrong() -> None:
    done = subprocess.run([sys.executable, str(DIGITS), "--epochs", "0"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--epochs" in done.stderr


# The reference would train for an hour.
@pytest.mark.needs("cpu")
def test_scram_learns_digits_as_full_attention_does(digits: ModuleType) -> None:
    task, found = digits.make_task("classify"), {}
    for name, attention in (("full", FULL), ("scram", SCRAM)):
        network = digits.build(task, attention, seed=0)
        digits.train(network, task, epochs=2, seed=0)
        found[name] = digits.evaluate(network, task)
    assert found["full"] > 85
    assert found["scram"] > found["full"] - 5


@pytest.mark.parametrize("attention", [FULL, SCRAM], ids=["full", "scram"])
def test_pixels_are_predicted_from_those_before(digits: ModuleType, attention: dict[str, Any]) -> None:
    task = digits.make_task("next-pixel")
    network = digits.build(task, attention, seed=0)
    picture = task.test[0][:2]
    with torch.no_grad():
        expected = network(picture).flatten(2)
        for first in (0, 1, 27, 63):
            other = picture.flatten(1).clone()
            other[:, first:] = 16 - other[:, first:]
            found = network(other.view_as(picture)).flatten(2)
            torch.testing.assert_close(found[..., : first + 1], expected[..., : first + 1])
            assert first == 63 or not torch.allclose(found, expected)


def test_both_networks_begin_alike_and_exchange_weights(digits: ModuleType) -> None:
    task = digits.make_task("classify")
    full, scram = (digits.build(task, attention, seed=3) for attention in (FULL, SCRAM))
    for (name, one), (other_name, other) in zip(full.state_dict().items(), scram.state_dict().items(), strict=True):
        assert name == other_name
        assert torch.equal(one, other)
    with torch.no_grad():
        everything = digits.build(task, {**SCRAM, "expand": 8}, seed=3)
        picture = task.test[0][:3]
        torch.testing.assert_close(everything(picture), full(picture))
