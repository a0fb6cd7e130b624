"""Checks of a request's `Host` and of the page that sent it, against DNS rebinding and cross-site requests.

A web page may send requests anywhere, also to 127.0.0.1, and a name that an attacker owns may resolve to any address
(DNS rebinding). The `Host` header says by which name the browser called the server, `Origin`, `Sec-Fetch-Site` and
`Referer` which page made it call; none of them can be set by a page's own scripts.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field

from patchattn.demo.http import HTTPError, Scope, header

__all__ = ["Access", "is_loopback", "normal_host", "split_authority"]

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?", re.IGNORECASE | re.ASCII)
SAFE_METHODS = ("GET", "HEAD")
DEFAULT_PORTS = {"http": 80, "https": 443}

UNKNOWN_HOST = (
    "This page is not served under the name by which it was asked for. Whoever runs it can add the name: "
    "patchattn demo --allow-host NAME"
)
CROSS_SITE = "This request comes from another website; this page answers its own requests alone."


@dataclass(frozen=True)
class Access:
    """The host names of the server, and the check of each request against them.

    Args:
        port: of the server.
        names: hosts by which it is known, together with its port; as `normal_host` writes them.
        allowed: names with the port that goes with them, None for any; for reverse proxies and tunnels.
        any_address: the server listens at all addresses, and is known by the one at which a connection arrives.
    """

    port: int
    names: frozenset[str] = LOOPBACK_HOSTS
    allowed: frozenset[tuple[str, int | None]] = field(default_factory=frozenset)
    any_address: bool = False

    def check(self, scope: Scope) -> None:
        """Raise `HTTPError` unless the request is for this server and comes from its own page."""
        authority = header(scope, "host") or ""
        self._check_host(authority, scope)
        _check_origin(authority, scope)

    def _check_host(self, authority: str, scope: Scope) -> None:
        try:
            host, port = split_authority(authority)
        except ValueError:
            raise HTTPError(421, UNKNOWN_HOST) from None
        given = port or DEFAULT_PORTS.get(scope.get("scheme", "http"))
        if {(host, None), (host, given)} & self.allowed:
            return
        known = host in self.names or (self.any_address and host == _local_address(scope))
        if not known or given != self.port:
            raise HTTPError(421, UNKNOWN_HOST)


def _check_origin(authority: str, scope: Scope) -> None:
    """Raise `HTTPError` for a request from another website; a link to the page is followed."""
    origin = header(scope, "origin")
    if origin is not None and not _is_same_origin(origin, authority, scope):
        raise HTTPError(403, CROSS_SITE)
    site = header(scope, "sec-fetch-site")
    if site is not None:
        if site not in ("same-origin", "none") and not _is_link(scope):
            raise HTTPError(403, CROSS_SITE)
        return
    # A browser from before Sec-Fetch-Site, or no browser at all.
    referer = header(scope, "referer")
    if scope["method"] not in SAFE_METHODS and origin is None and referer is not None:
        page = re.match(r"https?://[^/?#]*", referer)
        if page is None or not _is_same_origin(page[0], authority, scope):
            raise HTTPError(403, CROSS_SITE)


def _is_same_origin(origin: str, authority: str, scope: Scope) -> bool:
    """Whether an origin is this server. Where a reverse proxy speaks TLS, only the browser knows it."""
    scheme, separator, rest = origin.lower().partition("://")
    schemes = {"https", scope.get("scheme", "http")}
    return bool(separator) and scheme in schemes and rest == authority.lower()


def _is_link(scope: Scope) -> bool:
    """Whether the browser opens the page itself, in a tab; not as an image, a script or a frame of another."""
    navigates = header(scope, "sec-fetch-mode") == "navigate" and header(scope, "sec-fetch-dest") == "document"
    return navigates and scope["method"] in SAFE_METHODS and scope["path"] == "/"


def split_authority(authority: str) -> tuple[str, int | None]:
    """The host and the port of `host`, `host:port` or `[address]:port`; a `ValueError` if it is none of these.

    Example:
        >>> split_authority("LocalHost:7860"), split_authority("[::1]")
        (('localhost', 7860), ('::1', None))
    """
    found = AUTHORITY.fullmatch(authority)
    if found is None:
        raise ValueError(f"expected a host name, with :port or without, got {authority!r}")
    return normal_host(found[1]), int(found[2]) if found[2] else None


def normal_host(host: str) -> str:
    """A host in one spelling: lower case, an address in its shortest form, without brackets.

    Example:
        >>> normal_host("[0:0:0:0:0:0:0:1]"), normal_host("::ffff:192.168.1.2"), normal_host("Example.ORG")
        ('::1', '192.168.1.2', 'example.org')
    """
    host = host.removeprefix("[").removesuffix("]").lower()
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def is_loopback(host: str) -> bool:
    """Whether this machine alone can reach a host.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
        (True, True, False)
    """
    host = normal_host(host)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _local_address(scope: Scope) -> str | None:
    server = scope.get("server")
    return normal_host(server[0]) if server else None
