"""Similarities: how alike a query patch and a key patch are (larger is better)."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import MAGIC_NUMBER
from itertools import product
from pickle import PicklingError, UnpicklingError
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from patchattn.function_content import UnknownContentError, content_digest, frozen
from patchattn.registry import SIMILARITIES

__all__ = ["BY_PRODUCTS", "Similarity", "pointwise_similarity", "register_similarity", "resolve_similarity"]

Pointwise = Callable[[Any, Any], Any]
PointwiseDerivative = Callable[[Any, Any], tuple[Any, Any]]


@dataclass(frozen=True)
class Similarity:
    """A similarity of two patches; make your own with `pointwise_similarity`, name it with `register_similarity`.

    `name` identifies it everywhere (operators take the name, since their schemas hold no objects). `function` and
    `derivative` are set for a user's own similarity only; the built-in ones are known to the kernels by name.
    """

    name: str
    function: Pointwise | None = None
    derivative: PointwiseDerivative | None = None
    _origin: tuple[Any, Any] = field(default=(None, None), repr=False, compare=False)
    """The functions as they were given, which a pickle refers to."""
    _unsaved: str | None = field(default=None, repr=False, compare=False)
    """The reason why it cannot be restored in another process; None if it can."""
    _registered: Similarity | None = field(default=None, repr=False, compare=False)
    """The similarity that its name stands for, which lives as long as this one does; None if it is itself that."""

    def __copy__(self) -> Similarity:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Similarity:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if self.function is None:
            return resolve_similarity, (self.name,)
        if self._unsaved is not None:
            raise PicklingError(
                f"similarity: {self.name} cannot be saved, for it depends on {self._unsaved}; write its functions with "
                "numbers, arrays, NumPy's functions and functions of your own, and make it again."
            )
        return _restored, (*self._origin, self.name, _python(), _samples(self.function, self.derivative))


BY_PRODUCTS = ("l2", "dot", "scaled_dot", "cosine")
"""Those that one matrix product computes for all pairs of patches."""

_pointwise: WeakValueDictionary[str, Similarity] = WeakValueDictionary()
"""Similarities of users by name, as long as something holds them: a layer, a variable, a gradient to be computed."""
_copies: WeakValueDictionary[str, Any] = WeakValueDictionary()
"""Copies of a user's functions by digest. What is compiled from one holds it, so that nothing is compiled twice."""

PREFIX = "pointwise_"
PROBES = (-30.0, -1.0, -0.3, -0.01, 0.0, 1e-4, 0.1, 0.7, 3.0)
"""Numbers whose similarities are compared where byte code cannot be: in another version of Python."""


def pointwise_similarity(function: Pointwise, derivative: PointwiseDerivative | None = None) -> Similarity:
    r"""Make a similarity from a function of two scalars.

    $$s(i, j) = \sum_{o \in \text{patch}} \sum_c f(q_{c, i + o}, k_{c, j + o})$$

    It is named by what its functions compute with: their code, and the values that they read from outside, which are
    kept as they are now. So equal functions are one similarity, in every process, and a layer that was saved (or sent
    to another process) computes the same when it is loaded, or is refused. Pickle, and with it `torch.save`, saves
    functions of modules by their names, and no lambdas. What holds the name alone, such as an exported program, needs
    the similarity to be made before it runs, and to be kept as long as it does.

    Args:
        function: `f(q, k)`, larger for scalars that are more alike. It is compiled by Numba for the CPU kernels and
            called with NumPy arrays by the reference: use operators, `abs` and NumPy's elementwise functions.
        derivative: `(q, k) -> (df/dq, df/dk)`, written alike. Needed only for gradients with respect to query and key.

    Returns:
        An object to pass as `similarity=` anywhere.

    Example:
        >>> from patchattn import pointwise_similarity
        >>> charbonnier = pointwise_similarity(
        ...     lambda q, k: -((1e-2 + (q - k) ** 2) ** 0.5),
        ...     lambda q, k: (-(q - k) / (1e-2 + (q - k) ** 2) ** 0.5, (q - k) / (1e-2 + (q - k) ** 2) ** 0.5),
        ... )
    """
    if not callable(function):
        raise ValueError(f"function: expected a function of two scalars, got {type(function).__name__}.")
    if derivative is not None and not callable(derivative):
        raise ValueError(f"derivative: expected a function of two scalars or None, got {type(derivative).__name__}.")
    origin = function, derivative
    # What Numba has compiled already is compiled into the kernels anew.
    f, df = (getattr(given, "py_func", given) for given in origin)
    try:
        name = PREFIX + content_digest((f, df))[:32]
        copies = _shared_copy(f), _shared_copy(df)
    except UnknownContentError as error:
        similarity = Similarity(PREFIX + uuid.uuid4().hex, f, df, origin, str(error))
        return _pointwise.setdefault(similarity.name, similarity)
    known = _pointwise.setdefault(name, Similarity(name, *copies, origin))
    if all(one is other for one, other in zip(known._origin, origin, strict=True)):
        return known
    # A pickle refers to the functions that were given here.
    return Similarity(name, known.function, known.derivative, origin, _registered=known)


def _shared_copy(function: Any) -> Any:
    """Return the one copy of a function that all similarities made of it share; functions of libraries themselves."""
    copy = frozen(function)
    return copy if copy is function else _copies.setdefault(content_digest(function), copy)


def _restored(
    function: Pointwise,
    derivative: PointwiseDerivative | None,
    name: str,
    python: tuple[str, ...],
    samples: list[NDArray[np.float64] | None],
) -> Similarity:
    """Make a similarity that was pickled, from the functions that its pickle names or holds."""
    similarity = pointwise_similarity(function, derivative)
    same = similarity.name == name
    if not same and python != _python():
        pairs = zip(samples, _samples(function, derivative), strict=True)
        same = all(
            (old is None and new is None)
            or (old is not None and new is not None and np.allclose(old, new, rtol=1e-9, atol=1e-12, equal_nan=True))
            for old, new in pairs
        )
    if not same:
        called = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', function)}"
        raise UnpicklingError(
            f"similarity: {called}, its derivative, or a value that they read is not what it was when it was saved; "
            "restore what it was, or make the layer anew with pointwise_similarity()."
        )
    return similarity


def _python() -> tuple[str, ...]:
    """Return what byte code depends on."""
    return sys.implementation.name, MAGIC_NUMBER.hex(), str(sys.flags.optimize)


def _samples(*functions: Callable[[Any, Any], Any] | None) -> list[NDArray[np.float64] | None]:
    """Return the values of functions for some numbers; None for one that takes no plain numbers."""
    return [None if function is None else _sample(function) for function in functions]


def _sample(function: Callable[[Any, Any], Any]) -> NDArray[np.float64] | None:
    try:
        with np.errstate(all="ignore"):
            return np.asarray([function(np.float64(q), np.float64(k)) for q, k in product(PROBES, PROBES)], np.float64)
    except Exception:
        # Whatever a user's function raises, it raised when it was saved too.
        return None


def register_similarity(name: str, similarity: Similarity, *, replace: bool = False) -> Similarity:
    """Register a similarity, for `similarity=` of every function and layer and of the command line.

    Args:
        name: what it is called.
        similarity: made by `pointwise_similarity`.
        replace: take the place of a similarity of this name that was registered before.

    Returns:
        The similarity, which can be given in the place of its name; type checkers know that it is allowed.

    Raises:
        ValueError: the name is taken, or the similarity was not made by `pointwise_similarity`.
    """
    if not isinstance(similarity, Similarity) or similarity.function is None:
        raise ValueError(f"similarity: expected an object made by pointwise_similarity(), got {similarity!r}.")
    if isinstance(name, str) and name.startswith(PREFIX):
        raise ValueError(f"name: got {name!r}; names that begin with {PREFIX!r} are those of contents.")
    found: Similarity = SIMILARITIES.add(name, similarity, replace=replace)
    return found


def resolve_similarity(similarity: str | Similarity) -> Similarity:
    """Return the `Similarity` of a name, or the object itself."""
    if isinstance(similarity, Similarity):
        return similarity
    if isinstance(similarity, str) and similarity.startswith(PREFIX):
        return _of_content(similarity)
    found: Similarity = SIMILARITIES.get(similarity)
    return found


def _of_content(name: str) -> Similarity:
    """Return the similarity whose content has this name, if something holds it."""
    if name not in _pointwise:
        SIMILARITIES.problems()  # what other packages offer is loaded
    found = _pointwise.get(name)
    if found is None:
        raise ValueError(
            f"similarity: {name!r} is not known in this process; make it with pointwise_similarity(), from "
            "the functions it was made from, before what was exported or saved with it is run, and keep it."
        )
    return found


for _name in (*BY_PRODUCTS, "l1"):
    SIMILARITIES.add(_name, Similarity(_name))
