"""Inpainting networks trained with PSAL and with contextual attention: do both learn alike?

    python benchmarks/inpainting_training.py --data FOLDER [--steps 1000] [--seeds 0 1 2] [--jobs 2] [--work FOLDER]
                                             [--results FOLDER]

FOLDER holds images. Networks of 8 channels on squares of 96 pixels with holes of 36 to 48 (`patchattn train
inpainting`); what is trained is kept in the work folder, and an interrupted benchmark goes on. The curves are means of
50 steps of what the log calls `loss`, differences from the truth. The paper's own setting is

    patchattn train inpainting --data FOLDER --output RUN --attention psal        # 800,000 steps of 16 squares of 256

and `benchmarks/table6.py` measures any of the networks.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean
from typing import Any

from figures import new_figure, write_figure
from machine import table
from page import check_plots, image_link, machine_line, write_page

from patchattn.networks.inpainting import ATTENTIONS

LOG_EVERY, LAST = 50, 4
"""Steps of a point of the curves; and how many points are the end of a run."""
SETTING = [
    "--size", "96", "--hole-size", "48", "--channels", "8", "--critic-channels", "8", "--batch-size", "4",
    "--critic-steps", "1", "--learning-rate", "1e-3", "--log-every", str(LOG_EVERY), "--sample-every", "1000",
    "--checkpoint-every", "100", "--threads", "1", "--resume", "--json",
]  # fmt: skip


def train(data: Path, run: Path, attention: str, seed: int, steps: int) -> None:
    """Train one network, unless it is there."""
    if not (run / "network.safetensors").exists():
        print(f"training {run.name}", flush=True)
        own = ["--data", data, "--output", run, "--attention", attention, "--seed", str(seed), "--steps", str(steps)]
        subprocess.run([sys.executable, "-m", "patchattn.cli", "train", "inpainting", *own, *SETTING], check=True)


def losses(run: Path) -> list[tuple[int, float]]:
    """Steps and losses from the run's log; what a resumed run logged again replaces what was there."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curve: dict[int, float] = {}
    for log in sorted(run.rglob("events.out.tfevents.*")):
        events = EventAccumulator(str(log), {"scalars": 0}).Reload()
        if "loss" in events.Tags()["scalars"]:
            curve |= {event.step: event.value for event in events.Scalars("loss")}
    # A checkpoint between two points logs one of its own.
    return [(step, loss) for step, loss in sorted(curve.items()) if step % LOG_EVERY == 0]


def draw(curves: dict[str, dict[int, list[tuple[int, float]]]], path: Path) -> None:
    figure = new_figure(8, 4.5, dpi=120, layout=None)
    axes = figure.subplots()
    for color, (attention, runs) in zip(("#d62728", "#1f77b4"), curves.items(), strict=True):
        for number, curve in enumerate(runs.values()):
            label = attention if number == 0 else None
            axes.plot(*zip(*curve, strict=True), color=color, linewidth=1.2, alpha=0.8, label=label)
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("loss: differences from the truth")
    axes.grid(alpha=0.3, which="both")
    axes.legend(title="attention; a line for each seed")
    figure.tight_layout()
    write_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required="--help" not in sys.argv)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="networks trained at once, on one thread each")
    parser.add_argument("--work", type=Path, default=Path("out/inpainting_training"), help="where the runs are kept")
    parser.add_argument("--results", type=Path, help="where inpainting_training.md, .json and .png go")
    arguments = parser.parse_args()
    check_plots(arguments.results)
    runs = {
        (attention, seed): arguments.work / f"{attention}-{arguments.steps}-seed{seed}"
        for seed in arguments.seeds
        for attention in ATTENTIONS
    }
    with ThreadPoolExecutor(arguments.jobs) as pool:
        jobs = [
            pool.submit(train, arguments.data, run, attention, seed, arguments.steps)
            for (attention, seed), run in runs.items()
        ]
        for job in jobs:
            job.result()
    curves = {name: {seed: losses(runs[name, seed]) for seed in arguments.seeds} for name in ATTENTIONS}
    results: list[dict[str, Any]] = [
        {"attention": name, "seed": seed, "losses": curve} for name, of in curves.items() for seed, curve in of.items()
    ]
    ends = {name: [mean(loss for _, loss in curve[-LAST:]) for curve in of.values()] for name, of in curves.items()}
    rows = [
        [name, f"{mean(end):.4f}", f"{min(end):.4f} to {max(end):.4f}", str(len(end))] for name, end in ends.items()
    ]
    parts = [
        "# Inpainting networks trained with either attention",
        f"{arguments.steps} steps, squares of 96x96 pixels, holes of 36 to 48, batches of 4, 8 channels, rate 1e-3. "
        "Written by `python benchmarks/inpainting_training.py --data FOLDER --results docs/results`; the paper's own "
        "setting is `patchattn train inpainting --data FOLDER --output RUN --attention psal` (800,000 steps, squares "
        "of 256, batches of 16).",
        table(["attention", f"loss, mean of the last {LAST * LOG_EVERY} steps", "range", "seeds"], rows),
        machine_line(),
    ]
    print("\n\n".join(parts))
    if arguments.results is not None:
        arguments.results.mkdir(parents=True, exist_ok=True)
        plot = arguments.results / "inpainting_training.png"
        draw(curves, plot)
        write_page(arguments.results, "inpainting_training", [*parts, image_link(plot, "losses")], results)


if __name__ == "__main__":
    main()
