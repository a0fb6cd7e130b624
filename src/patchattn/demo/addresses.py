"""Where the server listens, and the address by which it can be reached."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from contextlib import suppress

from patchattn.demo.access import LOOPBACK, Access, is_loopback, normal_host, split_authority

__all__ = ["access_of", "listen", "reachable"]

FIRST, LAST = 7860, 7959
"""The ports that are tried when none is chosen."""
ANY = ("0.0.0.0", "::")


def listen(host: str, port: int | None) -> socket.socket:
    """A socket that listens there.

    Raises:
        ValueError: the host is none of this machine, or the port is taken or not for this user.
    """
    ports = range(FIRST, LAST + 1) if port is None else [port]
    try:
        found = socket.getaddrinfo(normal_host(host), ports[0], type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ValueError(f"--host: there is no host {host} ({error}).") from error
    family, kind, protocol, _, address = found[0]
    for candidate in ports:
        listening = socket.socket(family, kind, protocol)
        try:
            # A port whose connections have ended is free at once; one at which another server listens is not.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((address[0], candidate, *address[2:]))
            listening.listen(128)
        except OSError as error:
            listening.close()
            if error.errno == errno.EADDRINUSE and candidate != ports[-1]:
                continue
            raise ValueError(_why(host, candidate, port, error)) from error
        return listening
    raise AssertionError("there is at least one port")


def _why(host: str, candidate: int, port: int | None, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        taken = f"port {candidate} is in use" if port is not None else f"all ports from {FIRST} to {LAST} are in use"
        return f"--port: {taken} at {host}; choose another."
    if error.errno == errno.EACCES:
        return f"--port: {candidate} is not for this user; choose one from 1024."
    return f"--host: cannot listen at {host} ({error.strerror}); choose an address of this machine."


def access_of(host: str, port: int, allowed: Iterable[str]) -> Access:
    """The names by which a server is known that listens there; `allowed` are more, with `:port` or for any port.

    Raises:
        ValueError: one of `allowed` is no name.
    """
    names = set(LOOPBACK) | {normal_host(host)} - set(ANY)
    if not is_loopback(host):
        own = socket.gethostname().lower()
        names |= {own, f"{own}.local"}
    try:
        more = frozenset(split_authority(name) for name in allowed)
    except ValueError as error:
        raise ValueError(f"--allow-host: {error}.") from error
    return Access(port, frozenset(names), more, any_address=normal_host(host) in ANY)


def reachable(host: str, port: int) -> str:
    """The address of the page, for another machine where others can reach it."""
    host = normal_host(host)
    if host in ANY:
        host = _own_address() or "127.0.0.1"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _own_address() -> str | None:
    """The address of this machine in its network; nothing is sent to find out, the addresses are of no machine."""
    for family, elsewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, 9))
            return str(probe.getsockname()[0])
    return None
