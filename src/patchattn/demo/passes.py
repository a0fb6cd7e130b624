"""Passes: who a visitor is, and that the password was right, in a cookie which this server has signed."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import defaultdict, deque
from collections.abc import Callable

from patchattn.demo.http import Refused, Scope, headers

__all__ = ["Passes", "Throttle"]


class Throttle:
    """How often something may happen within some seconds, counted for each key.

    Args:
        times: so often within `seconds`.
        seconds: of the window that moves with time.
        sentence: what is said when it is refused, with status 429.
        clock: seconds from any beginning.
    """

    def __init__(self, times: int, seconds: float, sentence: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._times, self._seconds, self._sentence, self._clock = times, seconds, sentence, clock
        self._seen: dict[str, deque[float]] = defaultdict(deque)

    def check(self, key: str) -> None:
        """Raise `Refused` if it was too often already."""
        seen, now = self._seen[key], self._clock()
        while seen and seen[0] <= now - self._seconds:
            seen.popleft()
        if len(seen) >= self._times:
            raise Refused(429, self._sentence, (b"retry-after", str(round(self._seconds)).encode()))

    def count(self, key: str) -> None:
        """Count one more, if that is not too often."""
        self.check(key)
        self._seen[key].append(self._clock())
        if len(self._seen) > 10_000:  # of keys that came once and never again
            self._seen = defaultdict(deque, {name: seen for name, seen in self._seen.items() if self._recent(seen)})

    def _recent(self, seen: deque[float]) -> bool:
        return bool(seen) and seen[-1] > self._clock() - self._seconds


class Passes:
    """Give passes to visitors and recognize them.

    Args:
        port: it is part of the cookie's name, since browsers keep one jar for all ports of a host.
        password: what a visitor must know; None: everybody who reaches the server may come in.
    """

    def __init__(self, port: int, password: str | None) -> None:
        self._name = f"patchattn-{port}"
        self._password = None if password is None else _digest(password)
        self._key = secrets.token_bytes(32)
        self._wrong = Throttle(10, 60, "There were too many wrong passwords; please wait a minute.")

    @property
    def closed(self) -> bool:
        """Whether a password is needed."""
        return self._password is not None

    def visitor(self, scope: Scope) -> str | None:
        """The visitor whose pass a request brings; None without a valid one."""
        for line in headers(scope, "cookie"):
            for part in line.split(";"):
                name, _, value = part.strip().partition("=")
                visitor, _, signature = value.partition(".")
                if name == self._name and hmac.compare_digest(signature.encode(), self._sign(visitor).encode()):
                    return visitor
        return None

    def cookie(self, scope: Scope) -> tuple[bytes, bytes]:
        """The header that gives a new visitor a pass; it ends with the browser's session."""
        visitor = secrets.token_hex(16)
        secure = "; Secure" if scope.get("scheme") == "https" else ""
        value = f"{self._name}={visitor}.{self._sign(visitor)}; Path=/; HttpOnly; SameSite=Strict{secure}"
        return b"set-cookie", value.encode()

    def check_password(self, given: str, address: str) -> None:
        """Raise `Refused` if a password is wrong, or if an address has tried too many."""
        self._wrong.check(address)
        # Digests have one length, so that not even the length of the password shows in the time.
        if self._password is None or not hmac.compare_digest(_digest(given), self._password):
            self._wrong.count(address)
            raise Refused(401, "The password is wrong.")

    def _sign(self, visitor: str) -> str:
        return hmac.new(self._key, visitor.encode(), hashlib.sha256).hexdigest()


def _digest(password: str) -> bytes:
    return hashlib.sha256(password.encode("utf-8", "surrogatepass")).digest()
