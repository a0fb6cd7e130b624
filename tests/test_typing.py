"""The shapes in the public signatures, checked while they run (jaxtyping and beartype).

In a process of its own: the checker refuses wrong types before patchattn's own messages are reached.
"""

from __future__ import annotations

import subprocess
import sys

CODE = """
from jaxtyping import install_import_hook

modules = ["field", "matching.match", "attention.patch", "baselines.full", "attention.scram"]
modules = [f"patchattn.{name}" for name in modules]
with install_import_hook(modules, "beartype.beartype"):
    import patchattn
import jaxtyping
import torch

for size in ((12,), (7, 6), (4, 5, 3)):
    query, key, value = torch.rand(2, 4, *size), torch.rand(1, 4, *size), torch.rand(2, 6, *size)
    settings = dict(
        patch_size=3, query_mask=torch.ones(2, *size, dtype=torch.bool), key_mask=torch.ones(1, *size, dtype=torch.bool)
    )
    field = patchattn.match(query, key, k=2, num_heads=2, **settings)
    field.coordinates(), field.offsets()
    patchattn.match(query, key, k=3, num_heads=2, init=field, max_offset=2, min_separation=1, **settings)
    output, field = patchattn.patch_attention(query, key, value, num_heads=2, return_field=True, **settings)
    patchattn.PatchAttention(patch_size=3)(query, key, torch.rand(1, 2, *(2 * n for n in size)))
    patchattn.baselines.full_attention(query, key, value, **settings)
    patchattn.baselines.FullAttention(patch_size=3)(query, key, value)
    patchattn.scram_attention(query, key, value, num_heads=2, expand=1, return_diagnostics=True, query_mask=None)
    patchattn.ScramAttention(estimator="snis", samples=4)(query, key, torch.rand(1, 2, *(2 * n for n in size)))
try:
    patchattn.match(query, key, query_mask=torch.ones(2, 9, 9, 9, dtype=torch.bool))
except jaxtyping.TypeCheckError as error:
    print("refused")
"""


def test_public_signatures_tell_the_shapes() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "refused"
