"""How many bytes and operations each Triton kernel asks for, as formulas; gpu_roofline.py puts them beside counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from math import prod

__all__ = ["FORMULAS", "Facts", "Needs", "in_windows", "neighbors"]


@dataclass(frozen=True)
class Facts:
    """What a formula knows: sizes, and how often something happened that only the data decide.

    Keys are numbers of 4 bytes, similarities of `compute` bytes, those of pixels of `element` bytes.
    """

    size: tuple[int, ...]
    """Of query and key."""
    p: int = 7
    channels: int = 16
    k: int = 3
    element: int = 4
    compute: int = 4
    candidates: int = 0
    """Patches measured. Of similarity_at and its gradient: matches, all of them."""
    window: int = 1
    """Side of the window of voting neighbors, or of an expanded match."""
    votes: int = 0
    """Votes for keys inside the image."""
    near: int = 0
    """Pairs of a match and a key within the window about it."""
    softmax: bool = True
    distance: int = 1
    programs: int = 0
    tile: int = 64
    at_once: int = 4
    samples: int = 0
    steps: int = 0
    length: int = 8
    """Of a list of the guided search."""
    numbers: int = 32
    """Kept of a projected patch."""
    leaves: int = 0
    """Leaves that were compared with a query."""
    lookups: int = 0
    """Keys whose leaf was looked up."""
    level: int = 0
    """Of a tree, that is being parted."""
    levels: int = 0
    """Of a tree, through which a query goes to its leaf."""
    samples_of_ranges: int = 0
    """Keys whose numbers were looked at to part the ranges of a level."""
    chunks: int = 1
    """Programs that share a position, by channels."""

    @property
    def n(self) -> int:
        return prod(self.size)

    @property
    def pixel(self) -> int:
        """Numbers of a pixel in a table: channels, filled up to a multiple of four."""
        return -(-self.channels // 4) * 4 if self.channels > 1 else 1

    @property
    def padded(self) -> int:
        return prod(side + self.p - 1 for side in self.size)

    @property
    def offsets(self) -> int:
        """Pixels of a patch."""
        return self.p ** len(self.size)

    @property
    def of_pixel(self) -> int:
        return self.pixel * self.element

    @property
    def patch(self) -> int:
        """Bytes of a patch."""
        return self.offsets * self.of_pixel

    @property
    def lists(self) -> int:
        """Bytes of all lists: key and similarity."""
        return self.n * self.k * (4 + self.compute)

    @property
    def dated_lists(self) -> int:
        """The same, with the step in which a match entered."""
        return self.lists + self.n * self.k * 4


@dataclass(frozen=True)
class Needs:
    """Of one launch."""

    loads: int
    """Bytes that threads ask for: served by the first-level cache, or by what lies behind it."""
    stores: int
    far: int
    """Those of the loads that the first-level cache is not expected to hold: the second level serves them."""
    once: int
    """Bytes of everything that is read or written, each once: the least that passes the memory bus."""
    operations: int
    """Of floating point (multiply and add are two)."""


def neighbors(size: tuple[int, ...], distance: int) -> int:
    """Pairs of a query and a neighbor `distance` away along one dimension, both inside."""
    return sum(2 * max(0, side - distance) * (prod(size) // side) for side in size)


def in_windows(size: tuple[int, ...], window: int) -> int:
    """Pairs of a position and one of its window, both inside."""
    radius = window // 2
    return prod(sum(max(0, side - abs(offset)) for offset in range(-radius, radius + 1)) for side in size)


def _tables(f: Facts) -> int:
    return 2 * f.padded * f.of_pixel


def _measured(f: Facts, lists_in: int, lists_out: int) -> Needs:
    """Patches of query and key side by side, and lists."""
    loads = 2 * f.candidates * f.patch + lists_in
    # A query's patch stays near while it is compared; every candidate's is somewhere else.
    far = f.candidates * f.patch + min(f.candidates, f.n) * f.patch + lists_in
    return Needs(loads, lists_out, far, _tables(f) + lists_in + lists_out, 3 * f.candidates * f.offsets * f.channels)


def _initialize(f: Facts) -> Needs:
    return _measured(f, 0, f.dated_lists)


def _propagate(f: Facts) -> Needs:
    # Of each neighbor's matches when they entered, and the key of those that are new: here of all.
    return _measured(f, f.dated_lists + neighbors(f.size, f.distance) * f.k * 8, f.dated_lists)


def _random_search(f: Facts) -> Needs:
    return _measured(f, f.dated_lists, f.dated_lists)


def _finish(f: Facts) -> Needs:
    return _measured(f, f.n * f.length * 8, f.lists)


def _similarity(f: Facts) -> Needs:
    return _measured(f, f.n * f.k * 4, f.n * f.k * f.compute)


def _norms(f: Facts) -> Needs:
    return _measured(f, 0, f.n * f.compute)


def _exact(f: Facts) -> Needs:
    tiles = -(-f.n // f.tile)
    loads = (f.n * tiles + f.programs * f.n) * f.patch
    # What a program reads again and again is its own queries.
    far = f.programs * f.n * f.patch + f.n * f.patch
    lists = f.n * f.k * (4 + 8)  # measured in float64
    return Needs(loads, lists, far, _tables(f) + lists, 3 * f.n * f.n * f.offsets * f.channels)


def _query_gradient(f: Facts) -> Needs:
    pairs = f.n * f.offsets * f.k
    loads = f.padded * f.of_pixel + f.chunks * pairs * (4 + f.compute) + pairs * f.of_pixel
    stores = f.padded * f.pixel * f.compute
    once = _tables(f) + f.n * f.k * (4 + f.compute) + stores
    return Needs(loads, stores, f.padded * f.of_pixel + pairs * f.of_pixel, once, 4 * pairs * f.channels)


def _key_gradient(f: Facts) -> Needs:
    pairs, boxes = f.n * f.offsets * f.k, f.n * f.offsets
    # Where the matches of each key begin and end is looked up twice: to count the steps, and to take them.
    loads = f.padded * f.of_pixel + f.chunks * (boxes * 16 + pairs * (4 + f.compute)) + pairs * f.of_pixel
    stores = f.padded * f.pixel * f.compute
    once = _tables(f) + f.n * (f.k * (4 + f.compute) + 4) + stores
    far = f.padded * f.of_pixel + pairs * (4 + f.compute + f.of_pixel)
    return Needs(loads, stores, far, once, 4 * pairs * f.channels)


def _attend(f: Facts) -> Needs:
    asked = in_windows(f.size, f.window) * f.k
    # Twice: for the largest score, and for the sum.
    loads = f.chunks * 2 * (asked * 4 + f.votes * f.compute) + f.votes * f.of_pixel
    stores = f.n * (f.pixel * f.element + f.compute)
    lists = f.n * f.k * (4 + f.compute)
    once = f.n * f.of_pixel + lists + stores
    return Needs(loads, stores, lists + f.votes * f.of_pixel, once, 2 * f.votes * f.channels)


def _score_gradient(f: Facts) -> Needs:
    loads = f.n * f.k * (4 + f.compute) + 2 * f.votes * f.of_pixel + 2 * f.votes * f.compute * f.softmax
    stores = f.n * f.k * f.compute
    once = 2 * f.n * f.of_pixel + f.n * f.k * (4 + f.compute) + stores + 2 * f.n * f.compute * f.softmax
    far = f.n * f.k * (4 + f.compute) + f.votes * f.of_pixel + f.n * f.of_pixel
    return Needs(loads, stores, far, once, 2 * f.votes * f.channels)


def _value_gradient(f: Facts) -> Needs:
    boxes = in_windows(f.size, f.window) * 16
    loads = f.chunks * (boxes + f.near * (4 + f.compute) + f.votes * f.compute * f.softmax) + f.votes * f.of_pixel
    stores = f.n * f.pixel * f.compute
    once = f.n * (f.of_pixel + 4) + f.n * f.k * (4 + f.compute) + stores + f.n * f.compute * f.softmax
    far = f.near * (4 + f.compute) + f.votes * f.of_pixel
    return Needs(loads, stores, far, once, 2 * f.votes * f.channels)


def _weighted_sum(f: Facts) -> Needs:
    lists = f.n * f.k * (4 + f.compute)
    loads = f.chunks * lists + f.n * f.k * f.of_pixel
    stores = f.n * f.pixel * f.element
    return Needs(loads, stores, loads, lists + f.n * f.of_pixel + stores, 2 * f.n * f.k * f.channels)


def _expand(f: Facts) -> Needs:
    keys = f.window ** len(f.size)
    turns = -(-keys // f.at_once)
    loads = f.n * 4 * (f.k + turns * f.k * (f.k - 1) // 2)
    stores = f.n * f.k * keys * 4
    return Needs(loads, stores, f.n * f.k * 4, f.n * f.k * 4 + stores, 0)


def _majority(f: Facts) -> Needs:
    # Each vote is heard once for itself, and once more beside every vote of the window that it is compared with. Scores
    # are loaded where Triton is interpreted alone: nothing reads them, and a compiler leaves them out.
    turns = 1 + f.window ** len(f.size) * f.k
    heard = in_windows(f.size, f.window) * f.k * 4 + f.votes * f.compute
    lists = f.n * f.k * (4 + f.compute)
    stores = f.n * 8
    return Needs(turns * heard, stores, lists, lists + stores, f.n)


def _mixture(f: Facts) -> Needs:
    # Counted, chosen from, and asked for the density; the Gaussians' small tables are left out.
    turns = -(-f.samples // f.at_once)
    loads = 3 * f.n * f.k * 4 * turns
    stores = f.n * f.samples * (4 + f.compute)
    return Needs(loads, stores, f.n * f.k * 4, f.n * f.k * 4 + stores, 0)


def _chains(f: Facts) -> Needs:
    # Two chains for each mode; the Gaussians' small tables are left out.
    chains = 2 * f.k
    return _measured(f, f.n * chains * 4, f.n * chains * (f.steps + 1) * 4)


def _project(f: Facts) -> Needs:
    basis = (f.offsets * f.pixel + 1) * 32 * 4
    loads = f.n * f.patch + f.programs * basis
    stores = f.n * 32 * 2
    once = f.padded * f.of_pixel + basis + stores
    return Needs(loads, stores, f.programs * basis + f.n * f.patch, once, 2 * f.n * f.offsets * f.channels * 32)


def _widest(f: Facts) -> Needs:
    # Of every key its number among those allowed and its position; all 32 numbers, of two bytes, of those looked at.
    ranges = min(2**f.level, f.n // 8 - 2**f.level)
    keys = f.n - 8 * (2**f.level - ranges)
    loads = keys * 16 + f.samples_of_ranges * 64
    return Needs(loads, ranges * 8, loads, loads + ranges * 8, 3 * f.samples_of_ranges * 32)


def _seed(f: Facts) -> Needs:
    # At each level of the tree which number is asked for, where it parts, and that number of the query.
    descent = f.n * f.levels * 10
    leaf = 8 * 4 + 8 * f.numbers * 2
    own = f.n * f.numbers * 2
    loads = descent + own + f.leaves * leaf
    stores = f.n * f.length * 8
    once = f.n * 2 * f.numbers * 2 + f.n * 4 + stores
    return Needs(loads, stores, loads, once, 3 * f.leaves * 8 * f.numbers)


def _scan(f: Facts) -> Needs:
    of_list = f.length * 8
    lists = f.n * of_list + neighbors(f.size, 1) // 2 * of_list
    # Eight keys of a leaf: their positions and their numbers, in words of two.
    leaf = 8 * 4 + 8 * f.numbers * 2
    own = len(f.size) * f.n * (f.numbers * 2 + 4)
    loads = lists + own + f.lookups * 4 + f.leaves * leaf
    stores = f.n * of_list
    once = 2 * stores + 2 * f.n * f.numbers * 2 + f.n * 8
    far = lists + f.n * f.numbers * 2 + f.lookups * 4 + f.leaves * leaf
    return Needs(loads, stores, far, once, 3 * f.leaves * 8 * f.numbers)


FORMULAS: dict[str, Callable[[Facts], Needs]] = {
    "patchmatch.initialize": _initialize,
    "patchmatch.propagate": _propagate,
    "patchmatch.random_search": _random_search,
    "exact.exact": _exact,
    "patch_similarity.norms": _norms,
    "similarity.similarity": _similarity,
    "similarity_backward.query": _query_gradient,
    "similarity_backward.key": _key_gradient,
    "attend.attend": _attend,
    "vote_gradients.score": _score_gradient,
    "vote_gradients.value": _value_gradient,
    "weighted_sum.sum": _weighted_sum,
    "expand.expand": _expand,
    "majority.majority": _majority,
    "mixture.mixture": _mixture,
    "chains.chains": _chains,
    "projection.project": _project,
    "tree.widest": _widest,
    "guided_seed.seed": _seed,
    "guided_scan.scan": _scan,
    "guided_finish.finish": _finish,
}


def count_votes(
    places: list[tuple[int, ...]], matches: list[tuple[int, ...]], size: tuple[int, ...], window: int
) -> tuple[int, int]:
    """By going through them: votes, and pairs of a match and a key of the window about it."""
    votes = near = 0
    radius = range(-(window // 2), window // 2 + 1)
    for offset in product(radius, repeat=len(size)):
        for place, match in zip(places, matches, strict=True):
            if all(0 <= m - o < side for m, o, side in zip(match, offset, size, strict=True)):
                near += 1
                votes += all(0 <= x - o < side for x, o, side in zip(place, offset, size, strict=True))
    return votes, near
