"""Who may come in, in a browser and by hand."""

from __future__ import annotations

import contextlib
import http.client
import http.cookiejar
import json
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from patchattn.demo.http import HTTPError
from patchattn.demo.routes import route_of

PNG = b"\x89PNG\r\n\x1a\n"
Start = Callable[..., Any]


class Visitor:
    """A visitor who asks by hand, with the cookie that the page set."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._jar = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self._jar))
        self.page = self.ask("")[1].decode()
        self.session = secrets.token_hex(8)

    @property
    def cookie(self) -> str:
        return "; ".join(f"{cookie.name}={cookie.value}" for cookie in self._jar)

    def ask(
        self, path: str, content: bytes | None = None, method: str | None = None, **headers: str
    ) -> tuple[int, bytes]:
        given = {"content-type": "application/json"} | {name.replace("_", "-"): text for name, text in headers.items()}
        request = urllib.request.Request(f"{self.address}{path}", content, given, method=method)
        try:
            with self._opener.open(request, timeout=60) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def event(self, *needed: str) -> int:
        """The number of the first event of the page that has these words in its scripts and inputs."""
        found = re.search(r"window\.gradio_config = (.*?);</script>", self.page, re.DOTALL)
        assert found is not None
        config = json.loads(found[1])
        return next(
            event["id"] for event in config["dependencies"] if all(word in json.dumps(event) for word in needed)
        )

    def join(self, number: int, data: list[Any], session: str = "") -> int:
        event = {"data": data, "fn_index": number, "session_hash": session or self.session}
        return self.ask("gradio_api/queue/join", json.dumps(event).encode())[0]


def files_of(server: Any) -> list[Path]:
    """What visitors have on the disk of this server."""
    return sorted(server.folder.glob("patchattn-demo-*/files/*/*"))


@pytest.fixture
def website() -> Iterator[str]:
    """A website of somebody else; pages of it are what the test puts there."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>elsewhere</title>")

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as site:
        thread = threading.Thread(target=site.serve_forever, daemon=True)
        thread.start()
        yield f"http://evil.example:{site.server_port}/"
        site.shutdown()


ATTACK = """async (address) => {
  const tried = {};
  const attempt = async (name, path, options) => {
    try {
      const answer = await fetch(address + path, options);
      tried[name] = answer.type === "opaque" ? "opaque" : await answer.text();
    } catch { tried[name] = "refused"; }
  };
  const post = { method: "POST", body: new Blob([new Uint8Array(1000)]) };
  await attempt("read", "", {});
  await attempt("upload", "patchattn/upload?name=a.png", post);
  await attempt("upload unread", "patchattn/upload?name=a.png", { ...post, mode: "no-cors" });
  await attempt("with cookies", "patchattn/upload?name=a.png", { ...post, mode: "no-cors", credentials: "include" });
  const kind = { "content-type": "application/json" };
  await attempt("preflight", "gradio_api/queue/join", { method: "POST", body: "{}", headers: kind });
  await attempt("old upload", "gradio_api/upload", { ...post, mode: "no-cors" });
  const load = (tag, attributes) => new Promise((done) => {
    const element = Object.assign(document.createElement(tag), attributes);
    element.onload = () => done("loaded");
    element.onerror = () => done("refused");
    document.body.append(element);
  });
  tried.image = await load("img", { src: address + "favicon.ico" });
  tried.script = await load("script", { src: address + "theme.css" });
  const frame = document.createElement("iframe");
  frame.src = address;
  await new Promise((done) => { frame.onload = frame.onerror = done; document.body.append(frame); });
  try { tried.frame = frame.contentDocument ? "readable" : "refused"; } catch { tried.frame = "refused"; }
  return tried;
}"""


def test_other_websites_reach_nothing(server: Any, browser: Any, website: str) -> None:
    before = files_of(server)
    visitor = browser.new_context()
    page = visitor.new_page()
    page.goto(website)
    tried = page.evaluate(ATTACK, server.address)
    # What another website may not read is "opaque" to it whether it was refused or not; the disk shows it.
    assert {name: result for name, result in tried.items() if result not in ("refused", "opaque")} == {}
    assert files_of(server) == before
    visitor.close()


def test_a_name_that_is_bound_anew_has_nothing(server: Any, browser: Any) -> None:
    visitor = browser.new_context()
    page = visitor.new_page()
    for name in ("rebound.example", "127.0.0.1.rebound.example", "localhost.example"):
        response = page.goto(f"http://{name}:{urlsplit(server.address).port}/")
        assert response.status == 421
        assert "not served under the name" in page.inner_text("body")
        assert visitor.cookies() == []
    visitor.close()


def test_a_link_to_the_page_is_followed_and_leaves_open_pages_alone(server: Any, browser: Any, website: str) -> None:
    visitor = browser.new_context()
    page = visitor.new_page()
    page.goto(server.address)
    page.get_by_role("heading", name="patchattn").wait_for()
    before = visitor.cookies()
    other = visitor.new_page()
    other.goto(website)
    other.evaluate("address => { location.href = address; }", server.address)
    other.get_by_role("heading", name="patchattn").wait_for()
    assert visitor.cookies() == before
    assert [cookie["httpOnly"] for cookie in before] == [True]
    assert [cookie["sameSite"] for cookie in before] == ["Strict"]
    visitor.close()


def test_every_route_of_gradio_that_is_not_needed_is_closed() -> None:
    command = [sys.executable, Path(__file__).parent / "gradio_routes.py"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout.splitlines()
    assert len(found) > 80
    opened = set()
    for line in found:
        method, _, path = line.partition(" ")
        with contextlib.suppress(HTTPError):
            route_of(method, path)
            opened.add(line)
    assert opened == {
        "GET /",
        "HEAD /",
        "GET /assets/x",
        "GET /static/x",
        "GET /favicon.ico",
        "GET /theme.css",
        "GET /gradio_api/startup-events",
        "GET /gradio_api/queue/data",
        "GET /gradio_api/heartbeat/x",
        "POST /gradio_api/queue/join",
    }


@pytest.mark.parametrize(
    "path",
    [
        "config",
        "docs",
        "openapi.json",
        "monitoring",
        "login",
        "gradio_api/info",
        "gradio_api/upload",
        "gradio_api/file=/etc/passwd",
        "gradio_api/file=http://example.invalid/a.png",
        "gradio_api/run/predict",
        "gradio_api/vibe-code",
        "gradio_api/reset",
        "assets/..%2f..%2fetc/passwd",
        "patchattn/file/..%2f..%2fetc/passwd",
        "patchattn/file/x/..%2f..%2fetc%2fpasswd",
    ],
)
def test_what_is_not_needed_is_closed(server: Any, path: str) -> None:
    visitor = Visitor(server.address)
    assert visitor.ask(path)[0] == 404
    assert visitor.ask(path, b"{}")[0] in (404, 405)


def test_files_are_the_visitors_own(server: Any) -> None:
    ann, bob = Visitor(server.address), Visitor(server.address)
    status, content = ann.ask("patchattn/upload?name=a.png", PNG)
    upload = json.loads(content)["id"]
    assert status == 200
    assert ann.ask(f"patchattn/file/{upload}/a.png") == (200, PNG)
    assert bob.ask(f"patchattn/file/{upload}/a.png")[0] == 404
    # Nor are they opened for anybody else, or by a path.
    opens, enters = bob.event("uploaded('upscale-image')"), bob.event('"load"')
    assert bob.join(enters, []) == 200
    for name in (upload, "../../etc/passwd", "/etc/passwd", str(files_of(server)[0])):
        assert bob.join(opens, [name, None]) == 200
    assert ann.join(opens, [upload, None], session=bob.session) == 403
    with bob._opener.open(f"{server.address}gradio_api/queue/data?session_hash={bob.session}", timeout=60) as events:
        received = b""
        while received.count(b"process_completed") < 5:
            received += events.readline()
    assert received.count(b"no longer kept here") >= 4
    assert b"preview.png" not in received


@pytest.mark.parametrize("kind", ["chunked", "longer than announced", "announced", "broken off"])
def test_an_upload_that_is_refused_costs_nothing(server: Any, kind: str) -> None:
    visitor = Visitor(server.address)
    before = files_of(server)
    address = urlsplit(server.address)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)
    connection.putrequest("POST", "/patchattn/upload?name=a.png")
    connection.putheader("cookie", visitor.cookie)
    if kind == "chunked":
        connection.putheader("transfer-encoding", "chunked")
    else:
        connection.putheader("content-length", "3000000" if kind == "announced" else "1000000")
    connection.endheaders()
    if kind == "announced":
        response = connection.getresponse()
        assert (response.status, response.read()[-1:]) == (413, b".")
        assert response.getheader("connection") == "close"
    elif kind == "broken off":
        connection.send(bytes(1000))
    else:
        # The server does not read it to its end, and hangs up.
        part = bytes(100_000)
        with pytest.raises(ConnectionError):
            send_for_ever(connection, b"%x\r\n" % len(part) + part + b"\r\n" if kind == "chunked" else part)
        if kind == "longer than announced":  # what was announced has come; the rest is no part of it
            before = files_of(server)
    connection.close()
    for _ in range(600):  # until the server has seen the end
        if files_of(server) == before:
            break
        time.sleep(0.1)
    assert files_of(server) == before


def send_for_ever(connection: http.client.HTTPConnection, part: bytes) -> None:
    for _ in range(100_000):
        connection.send(part)


def test_one_visitor_who_asks_for_much_does_not_keep_others_waiting(server: Any, visit: Callable[[], Any]) -> None:
    flood = Visitor(server.address)
    assert flood.join(flood.event('"load"'), []) == 200
    opens = flood.event("uploaded('field-query')")
    upload = json.loads(flood.ask("patchattn/upload?name=a.png", PNG)[1])["id"]
    statuses = [flood.join(opens, [upload, None]) for _ in range(200)]
    assert statuses.count(200) <= 120  # in ten seconds
    assert set(statuses) == {200, 429}
    page = visit()
    page.get_by_role("tab", name="Upscale").click()
    panel = page.get_by_role("tabpanel").filter(visible=True)
    panel.get_by_role("button", name="Cat").click()
    panel.get_by_alt_text("small-cat.png").wait_for()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("a.svg", "a.svg: this page reads pictures whose name ends in one of"),
        ("page.html", "page.html: this page reads pictures"),
        ("large.png", "large.png: 2.5 MB, and this page takes files up to 2 MB."),
        ("empty.png", "empty.png: the file is empty."),
    ],
)
def test_a_file_that_is_refused_is_told_of_where_it_was_chosen(
    server: Any, visit: Callable[[], Any], tmp_path: Path, name: str, sentence: str
) -> None:
    (tmp_path / name).write_bytes(b"" if name == "empty.png" else bytes(2_500_000 if name == "large.png" else 100))
    before = files_of(server)
    page = visit()
    page.get_by_role("tab", name="Colorize").click()
    panel = page.get_by_role("tabpanel").filter(visible=True)
    panel.locator("input[type=file]").first.set_input_files(tmp_path / name)
    panel.get_by_role("alert").filter(has_text=sentence).wait_for()
    assert files_of(server) == before


def test_names_with_odd_characters_are_names_and_nothing_else(visit: Callable[[], Any], tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)> 100%#\u202e é.png"
    Image.fromarray(np.full((30, 40, 3), 99, np.uint8)).save(tmp_path / name)
    page = visit()
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    page.get_by_role("tab", name="Upscale").click()
    panel = page.get_by_role("tabpanel").filter(visible=True)
    panel.locator("input[type=file]").set_input_files(tmp_path / name)
    shown = "_img src=x onerror=alert(1)_ 100___ é.png"
    panel.get_by_alt_text(shown).wait_for()
    assert panel.locator("img[src=x]").count() == 0
    panel.get_by_role("button", name="Upscale", exact=True).click()
    with page.expect_download() as event:
        panel.locator(".pa-download").click()
    assert event.value.suggested_filename == shown.replace(".png", "-2x.png")
    panel.get_by_role("button", name="Remove").click()
    panel.get_by_alt_text(shown).wait_for(state="hidden")
    panel.locator(".pa-download").wait_for(state="hidden")


# ---- servers of their own ----


def test_other_machines_need_the_password(start: Start, browser: Any) -> None:
    server = start("--host", "0.0.0.0")
    address = urlsplit(server.address)
    token = address.query.removeprefix("token=")
    assert len(token) >= 20
    assert address.hostname not in ("0.0.0.0", "localhost")
    assert server.stderr.startswith("warning: other machines can reach this page at 0.0.0.0.")
    assert token not in server.stderr
    plain = f"http://{address.netloc}/"
    stranger = browser.new_context().new_page()
    assert stranger.goto(plain).status == 401
    stranger.get_by_label("Password").fill("a guess")
    stranger.get_by_role("button", name="Enter").click()
    stranger.get_by_role("alert").filter(has_text="The password is wrong.").wait_for()
    assert stranger.context.cookies() == []
    stranger.get_by_label("Password").fill(token)
    stranger.get_by_role("button", name="Enter").click()
    stranger.get_by_role("tab", name="Field").wait_for()
    stranger.context.close()
    guest = browser.new_context().new_page()
    guest.goto(server.address)
    guest.get_by_role("tab", name="Field").wait_for()
    assert guest.url == plain
    guest.reload()
    guest.get_by_role("tab", name="Field").wait_for()
    guest.context.close()
    assert server.end(signal.SIGHUP) == 0
    assert server.left() == []


def test_a_killed_server_is_cleared_after_by_the_next(start: Start) -> None:
    first = start(PATCHATTN_DEMO_PASSWORD="a long password")
    assert "token" not in first.address
    assert Visitor(first.address).ask("gradio_api/startup-events")[0] == 401
    visitor = urllib.request.Request(first.address, b"password=a+long+password")
    with urllib.request.build_opener(urllib.request.HTTPCookieProcessor()).open(visitor) as response:
        assert response.status == 200
    (left,) = first.left()
    first.end(signal.SIGKILL)
    assert left.exists()
    second = start("--allow-host", "photos.example")
    assert not left.exists()
    assert Visitor(second.address).ask("", host="photos.example")[0] == 200
    port = str(urlsplit(second.address).port)
    command = [sys.executable, "-m", "patchattn.cli", "demo", "--port", port]
    third = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (third.returncode, third.stdout) == (2, "")
    assert third.stderr == f"--port: port {port} is in use at 127.0.0.1; choose another.\n"
    with socket.create_connection(("127.0.0.1", int(port))):  # of somebody who stays
        assert second.end(signal.SIGINT) == 130
    assert second.left() == []
