"""The socket of the server, its host names and its URL."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from contextlib import suppress

from patchattn.demo.access import LOOPBACK_HOSTS, Access, is_loopback, normal_host, split_authority

__all__ = ["access_of", "listen", "page_url"]

FIRST_PORT, LAST_PORT = 7860, 7959
"""Ports to try when none is chosen."""
ANY_ADDRESS = ("0.0.0.0", "::")


def listen(host: str, port: int | None) -> socket.socket:
    """Open a socket that listens at this host and port.

    Raises:
        ValueError: the host is none of this machine, or the port is taken or not for this user.
    """
    ports = range(FIRST_PORT, LAST_PORT + 1) if port is None else [port]
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
            raise ValueError(_listen_error(host, candidate, port, error)) from error
        return listening
    raise AssertionError("there is at least one port")


def _listen_error(host: str, candidate: int, port: int | None, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        taken = (
            f"port {candidate} is in use"
            if port is not None
            else f"all ports from {FIRST_PORT} to {LAST_PORT} are in use"
        )
        return f"--port: {taken} at {host}; choose another."
    if error.errno == errno.EACCES:
        return f"--port: {candidate} is not for this user; choose one from 1024."
    return f"--host: cannot listen at {host} ({error.strerror}); choose an address of this machine."


def access_of(host: str, port: int, allowed: Iterable[str]) -> Access:
    """The host names of a server at this host and port; `allowed` are more, with `:port` or for any port.

    Raises:
        ValueError: one of `allowed` is no host name.
    """
    names = set(LOOPBACK_HOSTS) | {normal_host(host)} - set(ANY_ADDRESS)
    if not is_loopback(host):
        own = socket.gethostname().lower()
        names |= {own, f"{own}.local"}
    try:
        more = frozenset(split_authority(name) for name in allowed)
    except ValueError as error:
        raise ValueError(f"--allow-host: {error}.") from error
    return Access(port, frozenset(names), more, any_address=normal_host(host) in ANY_ADDRESS)


def page_url(host: str, port: int) -> str:
    """The URL of the page, for another machine where others can reach it."""
    host = normal_host(host)
    if host in ANY_ADDRESS:
        host = _own_address() or "127.0.0.1"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _own_address() -> str | None:
    """The address of this machine in its network; nothing is sent to find out, the addresses are of no machine."""
    for family, elsewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, 9))
            return str(probe.getsockname()[0])
    return None
