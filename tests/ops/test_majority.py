"""Operator `patchattn::majority`, and `majority_vote`."""

from __future__ import annotations

from collections import Counter
from itertools import product
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor

from patchattn import MatchField, majority_vote, match, patch_attention
from patchattn.ops.majority import majority
from patchattn.problem import Constraints
from tests.cases import CONSTRAINTS, PAIRS, Pair, check_operator, constraints_of, random_index, strided
from tests.kernels.parity import assert_same_bits, both

pytestmark = pytest.mark.usefixtures("poisoned_memory", "one_thread")

WINDOW = {1: (5,), 2: (3, 5), 3: (3, 1, 3)}
"""For so many dimensions; another one in each."""
FREE = Constraints()
SMALL = {
    "1d": Pair((9,), (7,), (1,), heads=2),
    "2d": Pair((4, 5), (4, 5), (1, 1), heads=2),
    "3d": Pair((2, 4, 3), (3, 4, 2), (1, 1, 1)),
    "2d_sizes": Pair((4, 3), (3, 5), (1, 1), batch=3),
}


def arguments(
    index: Tensor, key_shape: Any, window: Any, backend: str, constraints: Constraints = FREE
) -> tuple[Any, ...]:
    return index, torch.empty(1, 1, *key_shape), tuple(window), constraints, backend


def few_keys(pair: Pair, k: int) -> Tensor:
    """Matches near the query's own position, so that neighbors agree."""
    index = random_index(pair, k)
    home = torch.arange(prod(pair.query)).view(pair.query).int() % prod(pair.key)
    return torch.where(index % 3 > 0, home, index).clamp(min=-1)


def votes_of(index: Tensor, pair: Pair, b: int, h: int, query: tuple[int, ...]) -> Counter[int]:
    """Votes for the keys of one query, counted one by one."""
    votes: Counter[int] = Counter()
    places = list(product(*map(range, pair.key)))
    for offset in product(*(range(-(n // 2), n // 2 + 1) for n in WINDOW[pair.dims])):
        neighbor = tuple(i + o for i, o in zip(query, offset, strict=True))
        if not all(0 <= i < n for i, n in zip(neighbor, pair.query, strict=True)):
            continue
        for matched in index[(b, h, slice(None), *neighbor)].tolist():
            if matched >= 0:
                place = tuple(j - o for j, o in zip(places[matched], offset, strict=True))
                if place in places:
                    votes[places.index(place)] += 1
    return votes


def test_known_answer(backend: str) -> None:
    # With neighbors: keys 1 1; 2 2 1; 3 2 3; 3 4; and 5, which is outside.
    index = torch.tensor([[[[1, 2, 2, 4, -1]]]], dtype=torch.int32)
    found, share = majority(*arguments(index, [5], [3], backend))
    assert found[0, 0, 0].tolist() == [1, 2, 3, 3, -1]
    torch.testing.assert_close(share[0, 0, 0], torch.tensor([1, 2 / 3, 2 / 3, 1 / 2, 0]))
    assert found.dtype == torch.int32
    assert share.dtype == torch.float32


def test_of_as_many_votes_the_first_key_wins(backend: str) -> None:
    index = torch.tensor([[[[3]], [[1]], [[2]], [[1]], [[3]]]], dtype=torch.int32).view(1, 1, 5, 1)
    found, share = majority(*arguments(index, [5], [1], backend))
    assert found.item() == 1
    assert share.item() == pytest.approx(0.4)


@pytest.mark.parametrize("name", SMALL)
def test_it_is_the_most_frequent_vote(backend: str, name: str) -> None:
    pair = SMALL[name]
    index = few_keys(pair, 2)
    found, share = majority(*arguments(index, pair.key, WINDOW[pair.dims], backend))
    assert found.shape == share.shape == (pair.batch, pair.heads, 1, *pair.query)
    for b, h in product(range(pair.batch), range(pair.heads)):
        for query in product(*map(range, pair.query)):
            votes = votes_of(index, pair, b, h, query)
            key, part = int(found[(b, h, 0, *query)]), float(share[(b, h, 0, *query)])
            if not votes:
                assert (key, part) == (-1, 0)
                continue
            most = max(votes.values())
            assert key == min(j for j, count in votes.items() if count == most)
            assert part == pytest.approx(most / votes.total())


CONSTRAINED = [(name, label) for name in PAIRS for label in CONSTRAINTS]


@pytest.mark.parametrize(("name", "label"), CONSTRAINED)
def test_backends_agree_to_the_bit(compiled: str, name: str, label: str) -> None:
    pair = PAIRS[name]
    index, constraints = few_keys(pair, 2), constraints_of(label, pair)
    assert_same_bits(*both(compiled, "majority", index, pair.key, WINDOW[pair.dims], constraints))


@pytest.mark.parametrize("label", ["free", "masks"])
@pytest.mark.parametrize("name", ["1d", "2d", "3d"])
def test_opcheck(backend: str, name: str, label: str) -> None:
    pair = PAIRS[name]
    constraints = constraints_of(label, pair)
    check_operator(majority, arguments(few_keys(pair, 2), pair.key, WINDOW[pair.dims], backend, constraints))


def test_strides_do_not_matter(backend: str) -> None:
    pair = PAIRS["2d"]
    index = few_keys(pair, 2)
    found, expected = (majority(*arguments(x, pair.key, (3, 3), backend)) for x in (strided(index), index))
    assert all(map(torch.equal, found, expected))


def test_empty(backend: str) -> None:
    found, share = majority(*arguments(torch.zeros(0, 1, 1, 3, 4, dtype=torch.int32), (3, 4), (3, 3), backend))
    assert found.shape == share.shape == (0, 1, 1, 3, 4)


def test_vote_of_a_shifted_image(backend: str) -> None:
    image = torch.rand(1, 3, 16, 17, generator=torch.Generator().manual_seed(0))
    field = match(image, image.roll((2, 3), dims=(2, 3)), patch_size=3, method="exact", backend=backend)
    vote = majority_vote(field, 3, backend=backend)
    inside = (..., slice(3, -5), slice(3, -6))
    assert (vote.offsets()[0, 0, 0][inside] == torch.tensor([2, 3])[:, None, None]).all()
    assert (vote.similarity[inside] == 1).all()


def test_copies_are_as_sharp_as_the_image_where_means_are_not(backend: str) -> None:
    """Half of the patches come from elsewhere: a mean is a mixture, a copy is one or the other."""
    image = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    index = torch.arange(256).int().view(1, 1, 1, 16, 16)
    index[..., ::2] = index[..., ::2].roll(2, 3)
    field = MatchField(index, torch.zeros(index.shape), (16, 16))
    vote = majority_vote(field, 3, backend=backend)
    copied = image.flatten(2)[..., vote.index[0, 0, 0].long()]
    mean = patch_attention(image, image, image, field=field, aggregate=True, patch_size=3, backend=backend)
    assert set(copied.flatten().tolist()) <= set(image.flatten().tolist())
    assert copied.std() > 1.1 * mean.std()


def test_masks(backend: str) -> None:
    field = MatchField(torch.arange(6).int().view(1, 1, 1, 6), torch.zeros(1, 1, 1, 6), (6,))
    queries, keys = torch.tensor([[True, False, True, True, True, True]]), torch.tensor([[True] * 5 + [False]])
    vote = majority_vote(field, 3, query_mask=queries, key_mask=keys, backend=backend)
    assert vote.index.flatten().tolist() == [0, -1, 2, 3, 4, -1]
    assert vote.similarity.flatten().isneginf().tolist() == [False, True, False, False, False, True]


def test_errors_name_the_argument() -> None:
    field = MatchField(torch.zeros(1, 1, 1, 4, 4, dtype=torch.int32), torch.zeros(1, 1, 1, 4, 4), (4, 4))
    with pytest.raises(ValueError, match="patch_size: expected odd numbers"):
        majority_vote(field, 4)
    with pytest.raises(ValueError, match="query_mask: expected shape"):
        majority_vote(field, 3, query_mask=torch.ones(1, 3, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="key_mask: expected a bool tensor"):
        majority_vote(field, 3, key_mask=torch.ones(1, 4, 4))
    with pytest.raises(ValueError, match="field: expected a MatchField"):
        majority_vote(field.index, 3)  # type: ignore[arg-type]
