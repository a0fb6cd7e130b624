"""A rate limit: a number of events within a sliding window of time, counted for each key."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable

from patchattn.demo.http import HTTPError

__all__ = ["RateLimiter"]


class RateLimiter:
    """Refuses more than a number of events of one key within a sliding window of time.

    Args:
        times: events within `seconds`.
        seconds: length of the window.
        message: of the error, with status 429.
        clock: seconds from any beginning.
    """

    def __init__(self, times: int, seconds: float, message: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._times, self._seconds, self._message, self._clock = times, seconds, message, clock
        self._seen: dict[str, deque[float]] = defaultdict(deque)

    def check(self, key: str) -> None:
        """Raise `HTTPError` if the limit of this key is reached."""
        seen, now = self._seen[key], self._clock()
        while seen and seen[0] <= now - self._seconds:
            seen.popleft()
        if len(seen) >= self._times:
            raise HTTPError(429, self._message, (b"retry-after", str(round(self._seconds)).encode()))

    def count(self, key: str) -> None:
        """Count one more event, or raise `HTTPError` if the limit of this key is reached."""
        self.check(key)
        self._seen[key].append(self._clock())
        if len(self._seen) > 10_000:  # of keys that came once and never again
            self._seen = defaultdict(deque, {name: seen for name, seen in self._seen.items() if self._recent(seen)})

    def _recent(self, seen: deque[float]) -> bool:
        return bool(seen) and seen[-1] > self._clock() - self._seconds
