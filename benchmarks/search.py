"""Search on two real frames: time and cost of each method, and the exact search against an oracle.

Costs are means over the positions whose whole patch lies inside the picture: of the best and the third-best match.

    python benchmarks/search.py --data DIR [--json FILE]

DIR holds frames512/target.png and reference.png, and oracle/frames512_p7_k3_l2.npz (the exact costs).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from machine import machine, save, seconds, table
from torch import Tensor

from patchattn import match
from patchattn.tasks.images import read_picture

PATCH, K = 7, 3
SAMPLE = 2000


def oracle_errors(target: Tensor, reference: Tensor, oracle: dict[str, np.ndarray]) -> dict[str, float]:
    """Largest relative errors of the exact search's costs on a random sample of queries.

    `stored`: against the costs that the oracle holds, whose float32 products round by some 1e-5, which is more than
    1e-3 of the smallest costs; `summed`: against the costs of the oracle's matches summed in float64.
    """
    cost, index = oracle["cost"], oracle["index"]
    rows, columns, k = cost.shape
    chosen = np.random.default_rng(0).choice(rows * columns, SAMPLE, replace=False)
    y, x = np.unravel_index(chosen, (rows, columns))
    mask = torch.zeros(1, *target.shape[2:], dtype=torch.bool)
    mask[0, y + PATCH // 2, x + PATCH // 2] = True
    field = match(target, reference, k=K, patch_size=PATCH, method="exact", padding_mode="valid", query_mask=mask)
    found = -field.similarity[0, 0, :, y + PATCH // 2, x + PATCH // 2].double().numpy().T
    queries, keys = (image[0].double().unfold(1, PATCH, 1).unfold(2, PATCH, 1).numpy() for image in (target, reference))
    key_y, key_x = np.unravel_index(index[y, x], (rows, columns))
    summed = np.stack(
        [((queries[:, y, x] - keys[:, key_y[:, m], key_x[:, m]]) ** 2).sum((0, 2, 3)) for m in range(k)], axis=1
    )
    stored = cost[y, x].astype(np.float64)
    return {
        "stored": float((np.abs(found - stored) / stored).max()),
        "stored_beyond_1e-3": float((np.abs(found - stored) / stored > 1e-3).any(1).mean()),
        "summed": float((np.abs(found - summed) / summed).max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required="--help" not in sys.argv)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    files = [arguments.data / "frames512" / f"{name}.png" for name in ("target", "reference")]
    oracle_file = arguments.data / "oracle" / "frames512_p7_k3_l2.npz"
    missing = [str(file) for file in (*files, oracle_file) if not file.exists()]
    if missing:
        sys.exit(f"--data: missing {', '.join(missing)}")
    target, reference = (read_picture(file).colour for file in files)
    oracle = dict(np.load(oracle_file))
    exact = oracle["cost"].mean((0, 1))
    results, rows = [], []
    for iterations in (1, 2, 5, 10):
        search = {"k": K, "patch_size": PATCH, "method": "patchmatch", "iterations": iterations}
        inside = slice(PATCH // 2, -(PATCH // 2))
        cost = -match(target, reference, **search).similarity[0, 0, :, inside, inside].mean((1, 2)).double().numpy()
        time = seconds(lambda search=search: match(target, reference, **search), arguments.runs)
        results.append({**search, "cost": cost.tolist(), "over_exact": (cost / exact).tolist(), "seconds": time})
        rows.append(
            [
                f"patchmatch, {iterations}",
                f"{time['median']:.2f} ({time['min']:.2f} to {time['max']:.2f})",
                *(f"{cost[m]:.4f} ({cost[m] / exact[m]:.3f})" for m in (0, K - 1)),
            ]
        )
    errors = oracle_errors(target, reference, oracle)
    print(machine())
    print(
        table(["method, iterations", "seconds, median (range)", "best cost (over exact)", "third (over exact)"], rows)
    )
    print(
        f"exact search against the oracle, {SAMPLE} queries: largest relative error of a cost {errors['summed']:.1e} "
        f"(its matches summed in float64); {errors['stored']:.1e} (its stored float32 costs; beyond 1e-3 for "
        f"{errors['stored_beyond_1e-3']:.1%} of the queries)"
    )
    save(arguments.json, [*results, {"method": "exact", "relative_error": errors}])


if __name__ == "__main__":
    main()
