"""Attention to the best matches inside other people's networks: transformers, diffusers, timm, and any other."""

from __future__ import annotations

from patchattn.plugs.modules import Swap, swap_modules
from patchattn.plugs.sdpa import replace_sdpa
from patchattn.plugs.tokens import TokenAttention, mass_of_best

__all__ = ["Swap", "TokenAttention", "mass_of_best", "replace_sdpa", "swap_modules"]
