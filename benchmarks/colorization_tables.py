"""Guided colorization with one attention layer after another: PSAL's Tables 4, 5 and 8 and Figure 5.

Trains the network of Figure 3 on pairs of frames with every layer and several seeds (what is trained is kept in the
work folder: an interrupted benchmark goes on), measures the error on three sequences that no network has seen, with the
layer it was trained with and with PSAL-1 in its place, and the layer's memory and counted operations at 256x256.

    python benchmarks/colorization_tables.py --data DIR [--size 32] [--steps 3000] [--explore N]
                                             [--seeds 0 1 2] [--jobs 2]
                                             [--only NETWORK ...] [--measured] [--work FOLDER] [--results FOLDER]

DIR holds davis/SEQUENCE/*.jpg. The paper's own setting is `--size 256 --steps 200000`; one network of it is

    patchattn train colorization --data DIR/davis -o RUN --attention psal --k 3
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from colorization_page import write
from colorization_runs import HOLD_OUT, Network, Setting, networks, train_all
from flops import flops
from layer_cost import cost_of, smooth_features
from page import check_plots
from process import Forks

from patchattn import PatchAttention
from patchattn.networks.attention_layers import named_attention
from patchattn.networks.weights import load_colorization_network
from patchattn.tasks.files import atomic_writer
from patchattn.training.colorization import mean_error
from patchattn.training.frames import FrameSequence, read_sequences

COST_SIDE, CHANNELS = 256, 16
"""Of the features that memory and operations are measured on: the paper's."""
PSAL_1 = "PSAL 1"


def errors(setting: Setting, network: Network, seed: int, held: Sequence[FrameSequence]) -> dict[str, float]:
    """Mean squared errors of a trained network, as it is and with PSAL-1 in its attention's place."""
    folder = setting.folder(network, seed)
    known = folder / "errors.json"
    if not known.exists():
        trained = load_colorization_network(folder / "network.safetensors")
        found = {"own": mean_error(trained, held)}
        similarity = getattr(trained.attention, "similarity", "l2")
        trained.attention = PatchAttention(k=1, similarity=similarity)
        found[PSAL_1] = mean_error(trained, held)
        with atomic_writer(known) as file:
            file.write(json.dumps(found).encode())
    answer: dict[str, float] = json.loads(known.read_text())
    return answer


def cost(name: str) -> dict[str, float]:
    """Operations and bytes of one forward call of a network's attention as it would be trained on such frames."""
    (network,) = (network for network in networks(COST_SIDE) if network.name == name)
    layer = named_attention(network.attention, network.settings)
    memory = cost_of(layer, COST_SIDE, CHANNELS, backward=False).memory
    return {"gflops": flops(layer, *smooth_features(COST_SIDE, CHANNELS)) / 1e9, "gigabytes": memory / 1e9}


def measure(setting: Setting, chosen: Sequence[Network], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """One entry for each network that is trained: the errors of its seeds, and what its attention costs."""
    sequences = read_sequences(setting.data / "davis", size=setting.size)
    held = sequences[-HOLD_OUT:]
    # Tiles that come and go leave holes in the heap; pages of their own go back at once.
    forks = Forks(["colorization_tables"], {"MALLOC_MMAP_THRESHOLD_": "1000000"})
    results = []
    for network in chosen:
        of_seeds = [errors(setting, network, seed, held) for seed in seeds if setting.trained(network, seed)]
        if not of_seeds:
            continue
        results.append(
            {
                "network": network.name,
                "attention": network.attention,
                "settings": network.settings,
                "explores": network.explores,
                "errors": [found["own"] for found in of_seeds],
                "errors_with_psal_1": [found[PSAL_1] for found in of_seeds],
                **forks.call(cost, network.name, timeout=1800),
            }
        )
        print(f"{network.name}: {mean(results[-1]['errors']):.5f}", flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required="--help" not in sys.argv)
    parser.add_argument("--size", type=int, default=32, help="frames are resized to size x size")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--explore", type=int, help="first steps with random matches (default: a third of all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="networks trained at once, on one thread each")
    parser.add_argument("--only", nargs="+", metavar="NETWORK", help="these networks (default: all)")
    parser.add_argument("--measured", action="store_true", help="train nothing: report what the work folder holds")
    parser.add_argument("--work", type=Path, default=Path("out/colorization"), help="where the runs are kept")
    parser.add_argument("--results", type=Path, help="where colorization.md, .json and .png go")
    arguments = parser.parse_args()
    if not (arguments.data / "davis").is_dir():
        sys.exit(f"--data: {arguments.data} lacks davis/SEQUENCE/*.jpg; put them there or give another folder")
    check_plots(arguments.results)
    known = networks(arguments.size)
    unknown = set(arguments.only or []) - {network.name for network in known}
    if unknown:
        parser.error(f"--only: got {', '.join(sorted(unknown))}; there are {', '.join(n.name for n in known)}")
    chosen = [network for network in known if arguments.only is None or network.name in arguments.only]
    explore = arguments.steps // 3 if arguments.explore is None else arguments.explore
    work = arguments.work / f"{arguments.size}-{arguments.steps}-{explore}"
    setting = Setting(arguments.data, work, arguments.size, arguments.steps, explore)
    setting.work.mkdir(parents=True, exist_ok=True)
    if not arguments.measured:
        train_all(setting, chosen, arguments.seeds, arguments.jobs)
    write(measure(setting, chosen, arguments.seeds), setting, arguments.results)


if __name__ == "__main__":
    main()
