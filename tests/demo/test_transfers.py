"""Files that come in and go out."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlencode

import pytest

from patchattn.demo import http
from patchattn.demo.transfers import safe_name
from patchattn.demo.visitor_limits import VisitorLimits
from tests.demo.asgi import Answer, Page

LIMITS = VisitorLimits(megabytes=0.001, visitor_megabytes=0.0025, total_megabytes=0.004, visitor_files=4)


@pytest.fixture
def page(tmp_path: Path) -> Page:
    page = Page(tmp_path, LIMITS)
    page.enter()
    return page


def upload(
    page: Page, *parts: bytes, name: str = "a.png", leaves: bool = False, stands: bool = False, **headers: str
) -> Answer:
    query = urlencode({"name": name})
    return page.ask("POST", f"/patchattn/upload?{query}", *parts, leaves=leaves, stands=stands, **headers)


def test_an_upload_is_kept_for_its_visitor_alone(page: Page) -> None:
    answer = upload(page, b"abc", b"def", name="../Müller 1.PNG")
    assert answer.status == 200
    got = json.loads(answer.body)
    assert got["name"] == "Müller 1.PNG"
    path = f"/patchattn/file/{got['id']}/{got['name']}"
    served = page.ask("GET", path)
    assert (served.status, served.body) == (200, b"abcdef")
    assert served.header("content-type") == "image/png"
    assert served.header("content-length") == "6"
    assert served.header("content-disposition") == "inline; filename*=UTF-8''M%C3%BCller%201.PNG"
    assert served.header("content-security-policy") == "default-src 'none'; sandbox"
    assert served.header("x-content-type-options") == "nosniff"
    assert served.header("cross-origin-resource-policy") == "same-origin"
    assert (page.ask("HEAD", path).status, page.ask("HEAD", path).body) == (200, b"")
    page.enter()
    assert page.ask("GET", path).status == 404
    page.cookie = ""
    assert page.ask("GET", path).status == 404


@pytest.mark.parametrize(
    "name",
    [
        "a.html",
        "a.svg",
        "a.svgz",
        "a.xhtml",
        "a.js",
        "a.pdf",
        "a.eps",
        "a.png.html",
        "a.png ",
        "a.png/",
        "a.png\0.html",
        "a",
        "",
        ".png",
        "a.pn",
        "a.php",
    ],
)
def test_only_images_come_in(page: Page, tmp_path: Path, name: str) -> None:
    answer = upload(page, b"<script>alert(1)</script>", name=name)
    if name == "a.png ":  # by any name that the file gets
        assert json.loads(answer.body)["name"] == "a.png"
        return
    assert answer.status == 415
    assert b"this page reads pictures whose name ends in one of" in answer.body
    assert (answer.parts_read, list(tmp_path.iterdir())) == (0, [])


@pytest.mark.parametrize(
    ("parts", "headers", "read"),
    [
        ([bytes(100)] * 20, {}, 11),  # chunked: of no announced length
        ([bytes(100)] * 20, {"content_length": "10"}, 11),  # of more than is announced
        ([bytes(100)] * 20, {"content_length": "2000"}, 0),
        ([bytes(100_000)], {}, 1),
        ([bytes(10)], {"content_length": "99999999999999"}, 0),
    ],
)
def test_a_file_that_is_too_large_is_read_no_further(
    page: Page, tmp_path: Path, parts: list[bytes], headers: dict[str, str], read: int
) -> None:
    answer = upload(page, *parts, **headers)
    assert (answer.status, answer.parts_read) == (413, read)
    assert answer.body.endswith(b".")
    assert b"0.001 MB" in answer.body
    assert answer.header("connection") == "close"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", ["x", "-1", "1.5", "1e3", "9" * 30, "٣"])
def test_lengths_are_numbers(page: Page, length: str) -> None:
    assert page.ask("POST", f"/patchattn/upload?{urlencode({'name': 'a.png', 'size': length})}", b"a").status == 400
    if length.isascii():
        assert upload(page, b"a", content_length=length).status == 400


def test_whether_a_file_may_come_is_known_beforehand(page: Page, tmp_path: Path) -> None:
    def check(size: int) -> int:
        query = urlencode({"name": "a.png", "size": size, "check": 1})
        return page.ask("POST", f"/patchattn/upload?{query}").status

    assert (check(1000), check(1001)) == (200, 413)
    assert upload(page, bytes(1000)).status == upload(page, bytes(1000)).status == 200
    assert (check(500), check(501)) == (200, 413)
    page.enter()
    assert check(1000) == 200
    assert len(list(tmp_path.iterdir())) == 2


def test_visitors_fill_their_own_share_and_all_of_them_no_more_than_all(page: Page, tmp_path: Path) -> None:
    for _ in range(4):
        page.enter()
        statuses = [upload(page, bytes(300), bytes(300)).status for _ in range(6)]
        assert 200 not in statuses[4:]
        assert set(statuses) <= {200, 413, 507}
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.png")) == 6 * 600


@pytest.mark.parametrize("parts", [[b"a"], [b"a", b"b"], [b""], [bytes(900)], [bytes(10)] * 50])
def test_an_upload_that_breaks_off_leaves_nothing(page: Page, tmp_path: Path, parts: list[bytes]) -> None:
    assert upload(page, *parts, leaves=True).status == 400
    assert list(tmp_path.iterdir()) == []
    assert page.storage.used() == 0


def test_an_upload_that_stands_still_is_given_up(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "RECEIVE_TIMEOUT", 0.01)
    answer = upload(page, b"a", stands=True)
    assert (answer.status, answer.body) == (408, b"a.png: the rest did not come.")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_refused(page: Page, tmp_path: Path) -> None:
    assert upload(page, b"").status == 400
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "path",
    ["{id}/b.png", "{id}/..", "{id}/.", "{id}/server.lock", "{id}/%2e%2e", "x/a.png", "{id}/a.png/", "../{id}/a.png"],
)
def test_only_the_visitors_images_go_out(page: Page, tmp_path: Path, path: str) -> None:
    name = json.loads(upload(page, b"abc").body)["id"]
    (tmp_path / name / "field.pt").write_bytes(b"abc")
    assert page.ask("GET", f"/patchattn/file/{name}/a.png").status == 200
    assert page.ask("GET", f"/patchattn/file/{name}/field.pt").status == 404
    assert page.ask("GET", "/patchattn/file/" + path.format(id=name)).status == 404
    assert page.ask("GET", f"/patchattn/file/{name}/a.png", sec_fetch_site="cross-site").status == 403


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("photo.png", "photo.png"),
        ("a b.png", "a b.png"),
        ("../../../etc/passwd", "passwd"),
        ("..\\..\\a.png", "a.png"),
        ("C:\\a.png", "a.png"),
        ("..", "picture"),
        ("...png", "png"),
        ("a\nb\r\0c.png", "a_b__c.png"),
        ("\u202egnp.exe.png", "_gnp.exe.png"),
        ('a"><script>.png', "a___script_.png"),
        ("100%25#1.png", "100_25_1.png"),
        ("\udcff.png", "_.png"),
        ("é.png", "é.png"),
        ("e\u0301.png", "é.png"),
        ("日" * 100 + ".png", "日" * 38 + ".png"),
        ("a" * 300, "a" * 120),
    ],
)
def test_names_are_such_as_files_may_have(given: str, name: str, tmp_path: Path) -> None:
    assert safe_name(given) == name
    (tmp_path / safe_name(given)).touch(exist_ok=False)
    assert safe_name(name) == name
