"""The constants of the search algorithms, which all backends read: they decide what is found, not how fast."""

from __future__ import annotations

__all__ = [
    "BAND_OF_LINE",
    "BAND_ROWS",
    "COMPONENTS_PER_GROUP",
    "DISTANCE_SHIFT",
    "DRAWS_PER_MATCH",
    "EMPTY",
    "HASH_MULTIPLIER",
    "KEY_SAMPLES",
    "LATEST_SCAN",
    "LEAF_SIZE",
    "LINE_DISTANCES",
    "MASKED_NEIGHBOR_DISTANCE",
    "MAX_COMPONENTS",
    "MAX_LISTED",
    "MAX_NORM",
    "MIN_COMPONENTS",
    "MIN_EXPLAINED_VARIANCE",
    "OVERSAMPLING",
    "PATCHMATCH_ITERATIONS",
    "POSITION_MASK",
    "POSITION_SHIFT",
    "POWER_ITERATIONS",
    "PROPAGATION_DISTANCES",
    "QUERY_SAMPLES",
    "RANDOM_INCREMENT",
    "RANKED_BY_COMPONENTS",
    "SEED_LEAVES",
    "SPLIT_SAMPLE",
    "VARIANCE_SHIFT",
    "VARIANCE_TARGET",
    "ranked_length",
]

# Random numbers.
RANDOM_INCREMENT = 0x9E3779B9
"""Between the counters of two draws: 2^32 divided by the golden ratio."""
HASH_MULTIPLIER = 0x9E3779B1
"""Factor of the multiplicative hash that samples positions evenly: the prime below 2^32 divided by the golden ratio."""
DRAWS_PER_MATCH = 4
"""A search for k matches starts from so many random candidates times k."""
MAX_LISTED = 64
"""Up to this number of candidates (or DRAWS_PER_MATCH k if that is more), a start tries all instead of drawing some."""

# PatchMatch.
PROPAGATION_DISTANCES = (8, 4, 2, 1)
"""Distances of the neighbors whose matches are tried, one step of jump flooding each."""

# Guided search: projection.
MIN_COMPONENTS, MAX_COMPONENTS = 16, 32
"""Bounds of the number of principal components kept of a patch. On real images fewer than 16 misplace matches, more
than 32 buy nothing, and between them time hardly changes (docs/performance.md)."""
VARIANCE_TARGET = 0.97
"""Share of the keys' variance that the components should hold: as many are kept as this takes, within the bounds."""
COMPONENTS_PER_GROUP = 4
"""Beyond MIN_COMPONENTS, components are kept in groups of so many."""
KEY_SAMPLES = 512, 2048
"""Bounds of the number of key patches that the components are computed from, a fourth of all. Fewer are quicker where
images are small; more than the most find no better components."""
QUERY_SAMPLES = 512
"""Query patches among which the largest norm is looked for."""
OVERSAMPLING = 16
"""Directions that subspace iteration follows beyond MAX_COMPONENTS."""
POWER_ITERATIONS = 3
"""Iterations of it."""
MAX_NORM = 11500
"""Largest norm of a projected patch: the squared distance of two then fits in 29 bits."""
MIN_EXPLAINED_VARIANCE = 0.4
"""Share of the variance below which the projection is no guide (white noise), and PatchMatch searches instead."""
PATCHMATCH_ITERATIONS = 5
"""Fewest iterations that it then takes."""
RANKED_BY_COMPONENTS = ("l2", "dot", "scaled_dot", "cosine")
"""Similarities for which distances of components rank keys correctly, as far as the projection goes; for others the
lists are where PatchMatch starts from."""

# Guided search: k-d tree.
LEAF_SIZE = 8
"""Keys in a leaf."""
SPLIT_SAMPLE = 64
"""Keys of a node from which the component of largest variance is found."""
VARIANCE_SHIFT = 3
"""Low bits of the components that their variance does without, so that its sums fit in 32 bits."""

# Guided search: scans.
BAND_ROWS = 16
"""Rows that are scanned one after the other. What lies in other bands is seen as it was before the scan."""
BAND_OF_LINE = 4096
"""Positions of a band of an image with a single row."""
SEED_LEAVES = 8
"""Leaves near its own that a query looks at first where constraints may forbid many keys, and in one dimension: a
sequence has fewer neighbors to hear from."""
LINE_DISTANCES = (4, 2, 1)
"""In one dimension: distances of the neighbors that say where to look, as one alone says too little. (In more
dimensions it is the one beside, in each.)"""

MASKED_NEIGHBOR_DISTANCE = 2
"""In more dimensions: where the query mask excludes the neighbor beside, the one at this distance says where to look.
So the queries of a lattice, of which every second one is asked, hear from each other."""

# Guided search: an entry of a list is one integer, so that comparing entries compares distances, then positions.
# It holds the squared distance (29 bits), the position of the key (31 bits), and the scan in which it entered (3 bits).
DISTANCE_SHIFT = 34
POSITION_SHIFT = 3
POSITION_MASK = 0x7FFFFFFF
LATEST_SCAN = 7
"""Entries of later scans are marked as this one's."""
EMPTY = 2**63 - 1
"""An empty place, at the end of a list."""


def ranked_length(k: int) -> int:
    """Return the length of the lists of guided search, whole leaves: from them the k best are taken in the end."""
    return -(-(k + max(4, k // 2)) // LEAF_SIZE) * LEAF_SIZE
