"""Authentication by a signed cookie, which holds the visitor's id and is given after the password was checked."""

from __future__ import annotations

import hashlib
import hmac
import secrets

from patchattn.demo.http import HTTPError, Scope, headers
from patchattn.demo.rate_limit import RateLimiter

__all__ = ["Authentication"]


class Authentication:
    """Signs and verifies visitors' cookies, and checks the password.

    Args:
        port: part of the cookie's name, since browsers keep one jar for all ports of a host.
        password: None: everybody who reaches the server may use it.
    """

    def __init__(self, port: int, password: str | None) -> None:
        self._name = f"patchattn-{port}"
        self._password = None if password is None else _digest(password)
        self._key = secrets.token_bytes(32)
        self._wrong_passwords = RateLimiter(10, 60, "There were too many wrong passwords; please wait a minute.")

    @property
    def needs_password(self) -> bool:
        """Whether a password is needed."""
        return self._password is not None

    def visitor(self, scope: Scope) -> str | None:
        """The visitor's id from the request's cookie; None without a valid one."""
        for line in headers(scope, "cookie"):
            for part in line.split(";"):
                name, _, value = part.strip().partition("=")
                visitor, _, signature = value.partition(".")
                if name == self._name and hmac.compare_digest(signature.encode(), self._sign(visitor).encode()):
                    return visitor
        return None

    def cookie(self, scope: Scope) -> tuple[bytes, bytes]:
        """The `Set-Cookie` header for a new visitor; the cookie ends with the browser's session."""
        visitor = secrets.token_hex(16)
        secure = "; Secure" if scope.get("scheme") == "https" else ""
        value = f"{self._name}={visitor}.{self._sign(visitor)}; Path=/; HttpOnly; SameSite=Strict{secure}"
        return b"set-cookie", value.encode()

    def check_password(self, password: str, address: str) -> None:
        """Raise `HTTPError` if a password is wrong, or if an address has tried too many wrong ones."""
        self._wrong_passwords.check(address)
        # Digests have one length, so that not even the length of the password shows in the time.
        if self._password is None or not hmac.compare_digest(_digest(password), self._password):
            self._wrong_passwords.count(address)
            raise HTTPError(401, "The password is wrong.")

    def _sign(self, visitor: str) -> str:
        return hmac.new(self._key, visitor.encode(), hashlib.sha256).hexdigest()


def _digest(password: str) -> bytes:
    return hashlib.sha256(password.encode("utf-8", "surrogatepass")).digest()
