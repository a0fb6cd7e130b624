"""Every request passes the security middleware first, and every response passes it last."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from patchattn.demo import security_middleware
from patchattn.demo.http import HTTPError
from patchattn.demo.routes import route_of
from patchattn.demo.storage import Owner
from tests.demo.asgi import HOST, ORIGIN, Page, request, scope_of

JOIN = "/gradio_api/queue/join"
OPENED = json.dumps({"session_hash": "s1", "fn_index": 0, "data": []}).encode()


@pytest.fixture
def page(tmp_path: Path) -> Page:
    page = Page(tmp_path)
    page.enter()
    return page


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("HEAD", "/"),
        ("GET", "/assets/index-B1c2.js"),
        ("GET", "/static/fonts/a.woff2"),
        ("GET", "/theme.css"),
        ("GET", "/favicon.ico"),
        ("GET", "/gradio_api/startup-events"),
        ("GET", "/gradio_api/queue/data?session_hash=s1"),
        ("GET", "/gradio_api/heartbeat/s1"),
        ("POST", JOIN),
    ],
)
def test_what_the_page_needs_is_open(page: Page, method: str, path: str) -> None:
    answer = page.ask(method, path, OPENED)
    assert (answer.status, answer.body) == (200, b"the page")


@pytest.mark.parametrize(
    "path",
    [
        "/config",
        "/config/",
        "/docs",
        "/redoc",
        "/openapi.json",
        "/robots.txt",
        "/manifest.json",
        "/pwa_icon",
        "/monitoring",
        "/monitoring/summary",
        "/login",
        "/login/huggingface",
        "/logout",
        "/svelte/a.js",
        "/custom_component/1/client/component/a.js",
        "/api/predict",
        "/run/predict",
        "/queue/join",
        "/proxy=http://example.invalid/",
        "/file=/etc/passwd",
        "/file/etc/passwd",
        "/upload",
        "/assets/../config",
        "/assets/a/../../config",
        "/static/../../etc/passwd",
        "/assets/",
        "/patchattn/file/a",
        "/patchattn/file/../b.png",
        "/patchattn/file/a/b/c.png",
        "/patchattn/",
        "//",
        "/x/../",
        "",
        *(
            f"/gradio_api/{name}"
            for name in (
                "info",
                "openapi.json",
                "api/predict",
                "api/",
                "run/predict",
                "call/predict",
                "call/v2/predict",
                "call/predict/1",
                "upload",
                "upload_progress",
                "file=/etc/passwd",
                "file=/tmp/a.png",
                "file=http://example.invalid/a.png",
                "file/etc/passwd",
                "proxy=http://example.invalid/",
                "stream/1",
                "stream/s/1/2/playlist.m3u8",
                "component_server",
                "custom_component/1/client/component/a.js",
                "cancel",
                "reset",
                "queue/status",
                "queue/join/",
                "heartbeat/",
                "heartbeat/a/b",
                "deep_link",
                "runs",
                "run-history/records",
                "process_recording",
                "profiling/traces",
                "vibe-edit",
                "vibe-code",
                "vibe-starter-queries",
                "undo-vibe-edit",
                "dev/reload",
                "token",
                "user",
                "app_id",
                "login_check",
                "mcp/",
                "theme.css",
            )
        ),
    ],
)
def test_everything_else_is_closed(page: Page, path: str) -> None:
    for method in ("GET", "POST"):
        with pytest.raises(HTTPError) as refusal:
            route_of(method, path)
        assert refusal.value.status == 404
    seen = len(page.seen)
    assert page.ask("GET", path).status == 404
    assert len(page.seen) == seen


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "PROPFIND", "get"])
@pytest.mark.parametrize(
    "path", ["/", JOIN, "/patchattn/upload", "/patchattn/file/a/b.png", "/gradio_api/heartbeat/s1"]
)
def test_other_methods_are_closed(page: Page, method: str, path: str) -> None:
    answer = page.ask(method, path)
    assert answer.status == 405
    assert answer.header("allow") is not None


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:3000", "https://127.0.0.1", ORIGIN]
)
def test_no_other_origin_is_let_in_by_a_preflight(page: Page, origin: str) -> None:
    asks = {"access_control_request_method": "POST", "access_control_request_headers": "content-type"}
    answer = page.ask("OPTIONS", JOIN, origin=origin, **asks)
    assert answer.status in (403, 405)
    assert not [name for name, _ in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example:7860"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"referer": "http://evil.example/"},
    ],
)
@pytest.mark.parametrize("path", [JOIN, "/patchattn/upload?name=a.png"])
def test_what_is_foreign_reaches_nothing(page: Page, tmp_path: Path, headers: dict[str, str], path: str) -> None:
    seen = len(page.seen)
    answer = page.ask("POST", path, OPENED, **headers)
    assert answer.status in (403, 421)
    assert answer.body.endswith((b".", b"NAME"))
    assert answer.header("connection") == "close"
    assert (answer.parts_read, len(page.seen), list(tmp_path.iterdir())) == (0, seen, [])


def test_images_are_not_embedded_elsewhere_and_pages_not_framed(page: Page) -> None:
    for answer in (page.ask("GET", "/"), page.ask("GET", "/config"), page.ask("POST", JOIN, OPENED)):
        assert answer.header("cross-origin-resource-policy") == "same-origin"
        assert answer.header("cross-origin-opener-policy") == "same-origin"
        assert answer.header("x-frame-options") == "DENY"
        assert answer.header("x-content-type-options") == "nosniff"
        assert answer.header("referrer-policy") == "same-origin"
        assert "frame-ancestors 'none'" in (answer.header("content-security-policy") or "")
        assert answer.header("access-control-allow-origin") is None
    assert page.ask("GET", "/assets/a.js", sec_fetch_site="cross-site", sec_fetch_dest="script").status == 403


def test_what_a_request_says_of_proxies_is_not_believed(page: Page) -> None:
    page.ask("GET", "/", x_forwarded_host="evil.example", x_forwarded_proto="https", forwarded="host=evil.example")
    page.ask("GET", "/", x_gradio_server="http://evil.example", x_real_ip="1.2.3.4", x_forwarded_for="1.2.3.4")
    for scope in page.seen[-2:]:
        assert {name for name, _ in scope["headers"]} == {b"host", b"cookie"}


def test_websockets_are_closed(page: Page) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(page.app({"type": "websocket", "path": "/"}, None, send))  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1008}]


# ---- visitors ----


def test_every_visitor_gets_a_pass_once(tmp_path: Path) -> None:
    page = Page(tmp_path)
    answer = page.ask("GET", "/")
    cookie = answer.header("set-cookie") or ""
    assert cookie.startswith("patchattn-7860=")
    assert cookie.endswith("; Path=/; HttpOnly; SameSite=Strict")
    page.cookie = answer.cookie
    assert page.ask("GET", "/").header("set-cookie") is None
    first = page.seen[-1]["patchattn.visitor"]
    assert page.enter() != first
    page.cookie = ""
    page.ask("GET", "/theme.css")
    assert page.seen[-1]["patchattn.visitor"] == "at 127.0.0.1"
    secure = request(page.app, scope_of("GET", "/", scheme="https", headers=[("host", HOST)]))
    assert (secure.header("set-cookie") or "").endswith("; Secure")


@pytest.mark.parametrize("change", ["0", "", "ff", "\u00e9", "none"])
def test_no_cookie_can_be_forged(page: Page, change: str) -> None:
    name, _, value = page.cookie.partition("=")
    visitor, _, signature = value.partition(".")
    for forged in (
        f"{visitor}{change or '1'}.{signature}",
        f"{visitor}.{signature[:-2]}{change}",
        f"{visitor}.",
        change,
    ):
        page.cookie = f"{name}={forged}".encode().decode("latin-1")
        page.ask("GET", "/theme.css")
        assert page.seen[-1]["patchattn.visitor"] == "at 127.0.0.1"


def test_a_link_from_elsewhere_leaves_the_cookie_of_an_open_page_alone(tmp_path: Path) -> None:
    page = Page(tmp_path)
    answer = page.ask("GET", "/", sec_fetch_site="cross-site", sec_fetch_mode="navigate", sec_fetch_dest="document")
    assert answer.status == 200
    assert b'http-equiv="refresh"' in answer.body
    assert answer.header("set-cookie") is None
    assert page.seen == []


def test_sessions_belong_to_whoever_began_them(page: Page) -> None:
    assert page.ask("POST", JOIN, OPENED).status == 200
    page.enter()
    for answer in (
        page.ask("POST", JOIN, OPENED),
        page.ask("GET", "/gradio_api/queue/data?session_hash=s1"),
        page.ask("GET", "/gradio_api/heartbeat/s1"),
    ):
        assert answer.status == 403
        assert answer.body == b"This session is another visitor's."


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b'{"session_hash": 1}', b'{"session_hash": "a b"}', b"[" * 90_000, b"\xff"]
)
def test_events_name_a_session(page: Page, body: bytes) -> None:
    assert page.ask("POST", JOIN, body).status == 400
    assert page.bodies == []


@pytest.mark.parametrize(
    ("parts", "headers", "read"),
    [
        ([b"a"], {"content_length": "300000"}, 0),
        ([b"a"], {"content_length": "x"}, 0),
        ([b"a"], {"content_length": "-1"}, 0),
        ([b"a" * 100_000] * 30, {}, 3),
        ([b"a" * 100_000] * 30, {"content_length": "10"}, 3),
        ([b"a" * 3_000_000], {"transfer_encoding": "chunked"}, 1),
    ],
)
def test_an_event_that_is_too_long_is_read_no_further(
    page: Page, parts: list[bytes], headers: dict[str, str], read: int
) -> None:
    answer = page.ask("POST", JOIN, *parts, **headers)
    assert (answer.status, answer.parts_read) == (413, read)
    assert answer.header("connection") == "close"
    assert page.bodies == []


def test_a_flood_of_events_is_refused_and_is_nobody_elses(page: Page) -> None:
    times = security_middleware.EVENT_RATE[0]
    statuses = [page.ask("POST", JOIN, OPENED).status for _ in range(times + 5)]
    assert statuses == [200] * times + [429] * 5
    page.enter()
    assert page.ask("POST", JOIN, OPENED.replace(b"s1", b"s2")).status == 200


def test_an_address_does_not_become_any_number_of_visitors(page: Page) -> None:
    page.cookie = ""
    statuses = [page.ask("GET", "/").status for _ in range(security_middleware.VISITOR_RATE[0] + 5)]
    assert statuses == [200] * (security_middleware.VISITOR_RATE[0] - 1) + [429] * 6
    other = scope_of("GET", "/", client=("10.0.0.1", 1))
    assert request(page.app, other).status == 200


def test_a_visitor_has_so_many_requests_open_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security_middleware, "MAX_CONNECTIONS", 3)
    page = Page(tmp_path)
    page.enter()
    with page.app._connection("other"), page.app._connection("other"), page.app._connection("other"):
        assert page.ask("GET", "/").status == 200
        with pytest.raises(HTTPError, match="too many requests"), page.app._connection("other"):
            pass
    assert page.app._open == {}


def test_files_are_removed_when_the_page_is_closed(page: Page) -> None:
    now = 0.0
    page.storage._clock = lambda: now
    visitor = page.enter()
    page.ask("GET", "/gradio_api/heartbeat/s1")  # which ends at once here
    page.storage.add(Owner(visitor, "s1"))
    page.storage.add(Owner(visitor, "s2"))
    now = 61.0
    page.storage.sweep()
    assert [entry.owner.session for entry in page.storage._entries.values()] == ["s2"]


# ---- passwords ----

PASSWORD = "a long password"


@pytest.fixture
def closed(tmp_path: Path) -> Page:
    return Page(tmp_path, password=PASSWORD)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/theme.css"),
        ("GET", "/gradio_api/startup-events"),
        ("GET", "/gradio_api/queue/data?session_hash=s1"),
        ("GET", "/gradio_api/heartbeat/s1"),
        ("GET", "/patchattn/file/a/b.png"),
        ("POST", "/patchattn/upload?name=a.png"),
        ("POST", JOIN),
    ],
)
@pytest.mark.parametrize("cookie", ["", "patchattn-7860=0123.4567", f"patchattn-7860={PASSWORD}", "patchattn-7860="])
def test_without_the_password_nothing_is_there(
    closed: Page, method: str, path: str, cookie: str, tmp_path: Path
) -> None:
    closed.cookie = cookie
    answer = closed.ask(method, path, OPENED)
    # What looks the same for everybody gives nothing away.
    assert answer.status == (200 if path == "/theme.css" else 401)
    assert answer.header("set-cookie") is None
    assert not [scope for scope in closed.seen if scope["path"] != "/theme.css"]
    assert list(tmp_path.iterdir()) == []


def test_the_token_in_the_address_becomes_a_cookie(closed: Page) -> None:
    answer = closed.ask("GET", f"/?token={PASSWORD.replace(' ', '%20')}")
    assert (answer.status, answer.header("location")) == (303, "./")
    assert "HttpOnly; SameSite=Strict" in (answer.header("set-cookie") or "")
    assert PASSWORD not in str(answer.headers)
    closed.cookie = answer.cookie
    assert closed.ask("GET", "/").body == b"the page"
    # Opened once more it leads on, and keeps the cookie.
    again = closed.ask("GET", "/?token=anything")
    assert (again.status, again.header("set-cookie")) == (303, None)
    assert all(b"token" not in scope["query_string"] for scope in closed.seen)


@pytest.mark.parametrize(
    "password", ["", "a", "a long passwor", "a long password ", "A long password", "é", "a" * 3000]
)
def test_a_wrong_password_is_refused(closed: Page, password: str) -> None:
    answer = closed.ask("POST", "/", urlencode({"password": password}).encode())
    assert answer.status == 401
    assert b"The password is wrong." in answer.body
    assert b'type="password"' in answer.body
    assert closed.ask("GET", f"/?{urlencode({'token': password})}").status == 401
    assert answer.header("set-cookie") is None


def test_the_right_password_lets_in(closed: Page) -> None:
    answer = closed.ask("POST", "/", b"password=a+long+password")
    assert (answer.status, answer.header("location")) == (303, "./")
    closed.cookie = answer.cookie
    assert closed.ask("GET", "/").status == 200


def test_passwords_are_not_tried_by_the_thousand(closed: Page) -> None:
    answers = [closed.ask("POST", "/", b"password=x") for _ in range(11)]
    assert [answer.status for answer in answers] == [401] * 10 + [429]
    assert closed.ask("POST", "/", b"password=a+long+password").status == 429
    # Elsewhere somebody may still come in.
    other = scope_of("POST", "/", [("host", HOST)], client=("10.0.0.1", 1))
    assert request(closed.app, other, b"password=a+long+password").status == 303


def test_a_login_from_elsewhere_or_without_end_is_refused(closed: Page, page: Page) -> None:
    assert closed.ask("POST", "/", b"password=a+long+password", origin="http://evil.example").status == 403
    assert closed.ask("POST", "/", *[b"a" * 1000] * 20).status == 413
    assert page.ask("POST", "/", b"password=x").status == 405
