"""By which names the server is known, and from where requests may come."""

from __future__ import annotations

from typing import Any

import pytest

from patchattn.demo.access import Access, is_loopback, split_authority
from patchattn.demo.addresses import access_of
from patchattn.demo.http import HTTPError
from tests.demo.asgi import HOST, ORIGIN, scope_of

CROSS = [("sec-fetch-site", "cross-site")]
LINK = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")]


def status_of(access: Access, headers: list[tuple[str, str]], method: str = "GET", path: str = "/", **more: Any) -> int:
    try:
        access.check(scope_of(method, path, headers, **more))
    except HTTPError as refusal:
        return refusal.status
    return 200


@pytest.mark.parametrize(
    "host", ["127.0.0.1:7860", "localhost:7860", "LocalHost:7860", "[::1]:7860", "[0:0:0:0:0:0:0:1]:7860"]
)
def test_its_own_names_are_known(host: str) -> None:
    assert status_of(Access(7860), [("host", host)]) == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:7860",  # a name that was bound anew to 127.0.0.1
        "127.0.0.1.evil.example:7860",
        "localhost.evil.example:7860",
        "127.0.0.1",  # port 80
        "127.0.0.1:7861",
        "0.0.0.0:7860",
        "192.168.1.2:7860",
        "[::]:7860",
        "127.0.0.1:7860@evil.example",
        "user@127.0.0.1:7860",
        "127.0.0.1:7860/",
        "127.0.0.1:78600000",
        "127.0.0.1:",
        "١٢٧.0.0.1:7860",
        "",
    ],
)
def test_other_names_are_refused(host: str) -> None:
    assert status_of(Access(7860), [("host", host)]) == 421


def test_the_host_is_named_once() -> None:
    assert status_of(Access(7860), []) == 421
    assert status_of(Access(7860), [("host", HOST), ("host", "evil.example")]) == 400


def test_names_can_be_allowed() -> None:
    access = access_of("127.0.0.1", 7860, ["Photos.example", "localhost:9000", "[fd00::1]", "10.0.0.7", "box:80"])
    for host in ("photos.example", "photos.example:444", "localhost:9000", "[fd00::1]:7", "10.0.0.7:7860", "box"):
        assert status_of(access, [("host", host)]) == 200, host
    for host in ("localhost:9001", "example", "box:81", "photos.example.evil.example", "[fd00::2]"):
        assert status_of(access, [("host", host)]) == 421, host
    for name in ("http://a", "a b", "a:b", "", "a/b", "*"):
        with pytest.raises(ValueError, match=r"^--allow-host: expected a host name, with :port or without, got "):
            access_of("127.0.0.1", 7860, [name])


def test_a_server_at_all_addresses_is_known_by_the_one_that_is_called() -> None:
    for host in ("0.0.0.0", "::", "[::]"):
        access = access_of(host, 7860, [])
        for server, called in (
            ("192.168.1.2", "192.168.1.2"),
            ("::ffff:192.168.1.2", "192.168.1.2"),
            ("fd00::1", "[fd00::1]"),
        ):
            assert status_of(access, [("host", f"{called}:7860")], server=(server, 7860)) == 200
        for called in ("192.168.1.3:7860", "evil.example:7860", "192.168.1.2:80", "192.168.1.2", "0.0.0.0:7860"):
            assert status_of(access, [("host", called)], server=("192.168.1.2", 7860)) == 421
    assert status_of(access_of("192.168.1.2", 7860, []), [("host", "192.168.1.2:7860")]) == 200


FOREIGN = [
    "http://evil.example",
    "null",
    "http://127.0.0.1",
    "http://127.0.0.1:3000",
    "http://localhost:7860",  # the same machine, but not the name that was called
    "http://127.0.0.1:7860.evil.example",
    "http://evil.example#127.0.0.1:7860",
    "file://",
    "ftp://127.0.0.1:7860",
    "",
]


@pytest.mark.parametrize("origin", FOREIGN)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "DELETE"])
def test_other_origins_are_refused(origin: str, method: str) -> None:
    assert status_of(Access(7860), [("host", HOST), ("origin", origin)], method, "/gradio_api/queue/join") == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site", "", "anything"])
@pytest.mark.parametrize(
    ("method", "path", "more"),
    [
        ("GET", "/patchattn/file/a/b.png", [("sec-fetch-dest", "image")]),
        ("GET", "/", [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")]),
        ("GET", "/patchattn/file/a/b.png", LINK),
        ("GET", "/gradio_api/queue/data", [("sec-fetch-mode", "cors")]),
        ("POST", "/patchattn/upload", [("sec-fetch-mode", "no-cors")]),
        ("POST", "/", LINK),
    ],
)
def test_what_other_sites_ask_for_is_refused(site: str, method: str, path: str, more: list[tuple[str, str]]) -> None:
    assert status_of(Access(7860), [("host", HOST), ("sec-fetch-site", site), *more], method, path) == 403


def test_links_are_followed_and_the_page_itself_may_ask() -> None:
    assert status_of(Access(7860), [("host", HOST), *CROSS, *LINK]) == 200
    for site in ("same-origin", "none"):
        assert status_of(Access(7860), [("host", HOST), ("sec-fetch-site", site)], "POST") == 200
    assert status_of(Access(7860), [("host", HOST), ("origin", ORIGIN)], "POST") == 200
    # Behind a reverse proxy that speaks TLS.
    access = access_of("127.0.0.1", 7860, ["photos.example"])
    assert status_of(access, [("host", "photos.example"), ("origin", "https://photos.example")], "POST") == 200
    secure = {"scheme": "https"}
    assert status_of(access, [("host", "photos.example"), ("origin", "http://photos.example")], "POST", **secure) == 403


@pytest.mark.parametrize(
    ("referer", "status"),
    [
        (f"{ORIGIN}/", 200),
        (f"{ORIGIN}/?a=b", 200),
        ("http://evil.example/", 403),
        ("http://evil.example/127.0.0.1:7860", 403),
        ("http://127.0.0.1:7860.evil.example/", 403),
        ("http://127.0.0.1:7860@evil.example/", 403),
        ("about:blank", 403),
        ("", 403),
    ],
)
def test_an_old_browser_tells_by_the_referer(referer: str, status: int) -> None:
    assert status_of(Access(7860), [("host", HOST), ("referer", referer)], "POST") == status


def test_authorities() -> None:
    assert split_authority("a-b_c.example:1") == ("a-b_c.example", 1)
    for bad in ("", ":80", "a:b", "a:", "[::1", "::1", "a b", "a\n", "[evil]:80"):
        with pytest.raises(ValueError, match="expected a host name"):
            split_authority(bad)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("[::1]", True),
        ("LOCALHOST", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.2", False),
        ("machine", False),
        ("localhost.example", False),
    ],
)
def test_what_other_machines_can_reach(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
