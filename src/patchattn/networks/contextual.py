"""Old place of `patchattn.networks.inpainting`."""

from patchattn.deprecation import moved_names

NAMES = ("ATTENTIONS", "CoarseNetwork", "Convolution", "Critic", "InpaintingNetwork", "RefinementNetwork")
"""Its public names, and the classes that a whole network saved by `torch.save` refers to."""

__getattr__ = moved_names(
    __name__,
    {name: f"patchattn.networks.inpainting:{name}" for name in NAMES}
    | {"from_public_state": "patchattn.networks.inpainting:from_public_inpainting_state"},
)
