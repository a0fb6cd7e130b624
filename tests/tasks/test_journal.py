"""The record of finished work."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchattn.tasks.journal import JOURNAL, Journal, digest_of

SOURCES = ("a.jpg", "deep/b.png", "caf\udce9.png", "new\nline.tif", "ü 1.webp")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a result and a journal that knows it under five names."""
    (tmp_path / "a.png").write_bytes(b"result")
    journal = Journal(tmp_path)
    for source in SOURCES:
        journal.begin(source)
        journal.done(source, "key", tmp_path / "a.png")
    return tmp_path


def known(folder: Path) -> list[str]:
    journal = Journal(folder)
    return [source for source in SOURCES if journal.result_of(source, "key") == folder / "a.png"]


def test_what_was_done_is_known_again(folder: Path) -> None:
    assert known(folder) == list(SOURCES)
    assert Journal(folder).result_of("a.jpg", "another") is None
    assert Journal(folder).result_of("c.jpg", "key") is None


@pytest.mark.parametrize("content", [b"", b"resul", b"result, longer", b"Result"])
def test_a_result_that_changed_is_none(folder: Path, content: bytes) -> None:
    (folder / "a.png").write_bytes(content)
    assert known(folder) == []


def test_a_result_that_is_gone_is_none(folder: Path) -> None:
    (folder / "a.png").unlink()
    assert known(folder) == []


@given(cut=st.integers(0, 2000))
def test_a_journal_cut_anywhere(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    folder = tmp_path_factory.mktemp("cut")
    (folder / "a.png").write_bytes(b"result")
    for source in SOURCES:
        Journal(folder).done(source, "key", folder / "a.png")
    path = folder / JOURNAL
    path.write_bytes(path.read_bytes()[:cut])
    left = known(folder)
    assert left == list(SOURCES[: len(left)])
    Journal(folder).done("a.jpg", "new", folder / "a.png")
    assert Journal(folder).result_of("a.jpg", "new") is not None


@pytest.mark.parametrize(
    "content", [b"\0" * 50, b"[1]\n", b"{}\n", b'{"event": "done", "source": "a.jpg"}\n', b'{"event": []}\n', b"\xff\n"]
)
def test_a_journal_of_nonsense(folder: Path, content: bytes) -> None:
    (folder / JOURNAL).write_bytes(content)
    assert known(folder) == []
    Journal(folder).begin("a.jpg")
    assert Journal(folder).attempts("a.jpg") == 1


def test_attempts_and_failures(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number in (1, 2):
        journal.begin("a.jpg")
        assert Journal(tmp_path).attempts("a.jpg") == number
        assert Journal(tmp_path).failed("a.jpg")
    journal.fail("a.jpg")
    assert (Journal(tmp_path).attempts("a.jpg"), Journal(tmp_path).failed("a.jpg")) == (0, True)
    (tmp_path / "a.png").write_bytes(b"result")
    journal.done("a.jpg", "key", tmp_path / "a.png")
    assert not Journal(tmp_path).failed("a.jpg")


@given(st.lists(st.text()), st.lists(st.text()))
def test_other_parts_have_other_digests(one: list[str], other: list[str]) -> None:
    assert (digest_of(*one) == digest_of(*other)) == (one == other)
