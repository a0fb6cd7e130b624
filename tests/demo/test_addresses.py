"""The socket of the server, its errors and its URL."""

from __future__ import annotations

import socket

import pytest

from patchattn.demo import addresses
from patchattn.demo.addresses import listen, page_url


def test_the_first_free_port_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with listen("127.0.0.1", None) as first:
        port = first.getsockname()[1]
        monkeypatch.setattr(addresses, "FIRST_PORT", port)
        with listen("localhost", None) as second:
            assert second.getsockname()[1] > port
        monkeypatch.setattr(addresses, "LAST_PORT", port)
        with pytest.raises(ValueError, match=rf"^--port: all ports from {port} to {port} are in use at 127\.0\.0\.1;"):
            listen("127.0.0.1", None)
        with pytest.raises(ValueError, match=rf"^--port: port {port} is in use at 0\.0\.0\.0; choose another\.$"):
            listen("0.0.0.0", port)


def test_a_port_is_free_again_when_its_server_has_ended() -> None:
    with listen("127.0.0.1", None) as first:
        port = first.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), first.accept()[0]:
            pass
    with listen("127.0.0.1", port) as second:
        assert second.getsockname()[1] == port


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1", "300.1.1.1", "a b", "xn--" + "a" * 80])
def test_hosts_that_are_none_of_this_machine(host: str) -> None:
    with pytest.raises(ValueError, match=r"^--host: (there is no host|cannot listen at) "):
        listen(host, 7999)


def test_the_address_that_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert page_url("127.0.0.1", 7860) == "http://127.0.0.1:7860/"
    assert page_url("::1", 7860) == "http://[::1]:7860/"
    assert page_url("Machine", 80) == "http://machine:80/"
    monkeypatch.setattr(addresses, "_own_address", lambda: "192.168.1.2")
    assert page_url("0.0.0.0", 7860) == page_url("[::]", 7860) == "http://192.168.1.2:7860/"
    monkeypatch.setattr(addresses, "_own_address", lambda: None)  # without a network
    assert page_url("0.0.0.0", 7860) == "http://127.0.0.1:7860/"
