"""Old place of `patchattn.networks.superresolution`."""

from patchattn.deprecation import moved_names

NAMES = (
    *("CROSS_SCALE", "IN_SCALE", "SCALES", "SuperResolutionNetwork", "from_public_superresolution_state"),
    *("CrossScaleBranch", "InScaleBranch", "MiningCell", "Projection"),
)
"""Its public names, and the classes that a whole network saved by `torch.save` refers to."""

__getattr__ = moved_names(__name__, {name: f"patchattn.networks.superresolution:{name}" for name in NAMES})
