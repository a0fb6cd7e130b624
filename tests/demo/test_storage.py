"""How many files are kept, whose, and until when."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from patchattn.demo.http import HTTPError
from patchattn.demo.storage import Entry, EntryGoneError, Owner, Storage
from patchattn.demo.visitor_limits import VisitorLimits

ANN, BOB = Owner("ann", "1"), Owner("bob", "1")
LIMITS = VisitorLimits(megabytes=0.001, visitor_megabytes=0.002, total_megabytes=0.003, visitor_files=3)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def storage(tmp_path: Path, clock: Clock) -> Storage:
    return Storage(tmp_path, LIMITS, clock)


def put(storage: Storage, owner: Owner, size: int, parts: int = 1) -> Entry:
    with storage.upload(owner.visitor, "a.png") as (entry, write):
        for _ in range(parts):
            write(bytes(size // parts))
    storage.claim(owner, entry.id)
    return entry


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("parts", [1, 2, 10, 100])
def test_a_file_that_is_too_large_costs_nothing(storage: Storage, tmp_path: Path, parts: int) -> None:
    with pytest.raises(HTTPError, match=r"^The file is larger than 0\.001 MB") as refusal:
        put(storage, ANN, 1100, parts)
    assert refusal.value.status == 413
    assert list(tmp_path.iterdir()) == []
    assert storage.used() == 0
    assert put(storage, ANN, 1000, parts).size == 1000


def test_each_visitor_has_so_much_and_all_together(storage: Storage, tmp_path: Path) -> None:
    put(storage, ANN, 1000)
    second = put(storage, Owner("ann", "2"), 900)
    with pytest.raises(HTTPError, match=r"^This page keeps up to 0\.002 MB for a visitor") as refusal:
        put(storage, ANN, 200, parts=4)
    assert refusal.value.status == 413
    put(storage, BOB, 1000)
    with pytest.raises(HTTPError, match=r"^There is no room for more pictures on this page") as refusal:
        put(storage, Owner("carol"), 200)
    assert refusal.value.status == 507
    assert storage.used() == on_disk(tmp_path) == 2900
    storage.release([second.id], "ann")
    assert storage.used() == on_disk(tmp_path) == 2000
    put(storage, Owner("carol"), 200)


def test_uploads_at_one_time_count_while_they_come(storage: Storage, tmp_path: Path) -> None:
    with storage.upload("ann", "a.png") as (_, write), storage.upload("ann", "b.png") as (_, write_other):
        write(bytes(1000))
        write_other(bytes(900))
        with pytest.raises(HTTPError, match="for a visitor"), storage.upload("ann", "c.png") as (_, write_third):
            write_third(bytes(101))
        write_other(bytes(100))
    assert on_disk(tmp_path) == 2000


def test_each_visitor_has_so_many_files(storage: Storage) -> None:
    entries = [put(storage, ANN, 10) for _ in range(3)]
    for _ in range(5):
        with pytest.raises(HTTPError, match=r"^You have 3 files here"):
            storage.add(ANN)
    put(storage, BOB, 10)
    storage.release([entries[0].id], "ann")
    put(storage, ANN, 10)


def test_all_visitors_have_so_many_files(tmp_path: Path) -> None:
    storage = Storage(tmp_path, VisitorLimits(total_files=3))
    for visitor in "abc":
        storage.add(Owner(visitor))
    for visitor in "abcde":
        with pytest.raises(HTTPError, match="no room for more pictures") as refusal:
            storage.add(Owner(visitor))
        assert refusal.value.status == 507
    assert len(list(tmp_path.iterdir())) == 3


def test_one_result_may_be_too_much_but_not_the_next(storage: Storage) -> None:
    results = [storage.add(ANN) for _ in range(3)]
    for entry in results:
        (entry.folder / "a.png").write_bytes(bytes(1500))
    storage.update_size(results[0])
    storage.update_size(results[1])
    assert storage.used("ann") == 3000
    with pytest.raises(HTTPError, match="for a visitor"):
        storage.update_size(results[2])
    storage.release([results[2].id], "ann")
    with pytest.raises(HTTPError, match="for a visitor"):
        storage.add(ANN)


def test_a_disk_that_is_full_is_a_sentence(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(HTTPError, match="disk of this machine is full") as refusal, storage.upload("ann", "a.png"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert refusal.value.status == 507
    with pytest.raises(KeyboardInterrupt), storage.upload("ann", "a.png"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "use",
    [
        lambda storage, name: storage.claim(BOB, name),
        lambda storage, name: storage.using([name], "bob").__enter__(),
        lambda storage, name: storage.claim(ANN, "other"),
        lambda storage, name: storage.claim(ANN, f"../{name}"),
        lambda storage, name: storage.using([name, ""], "ann").__enter__(),
    ],
)
def test_files_are_their_owners(storage: Storage, use: Callable[[Storage, str], object]) -> None:
    entry = put(storage, ANN, 10)
    with pytest.raises(EntryGoneError, match="no longer kept here; please open it again"):
        use(storage, entry.id)
    storage.release([entry.id], "bob")
    assert entry.folder.exists()
    assert entry.users == 0


@pytest.mark.parametrize("name", ["..", ".", "", "a.png/", "../a.png", "/etc/passwd", "A.png", "b.png", "a.png\0"])
def test_only_what_is_in_the_folder_is_found(storage: Storage, name: str) -> None:
    entry = put(storage, ANN, 10)
    assert storage.find("ann", entry.id, name) is None
    assert storage.find("bob", entry.id, "a.png") is None
    assert storage.find("ann", "..", "a.png") is None
    assert storage.find("ann", entry.id, "a.png") == entry.folder / "a.png"


def test_what_work_uses_stays_until_it_is_done(storage: Storage, clock: Clock) -> None:
    entry = put(storage, ANN, 10)
    with storage.using([entry.id, entry.id], "ann"):
        storage.release([entry.id], "ann")
        clock.now = 1e6
        storage.sweep()
        assert entry.folder.exists()
        with pytest.raises(EntryGoneError):  # nobody begins with it
            storage.claim(ANN, entry.id)
    assert not entry.folder.exists()
    assert storage.used() == 0


def test_files_of_visitors_who_left_are_removed(storage: Storage, clock: Clock) -> None:
    with storage.page(ANN):
        with storage.page(ANN):  # once more, after the connection was lost
            entry, other = put(storage, ANN, 10), put(storage, Owner("ann", "2"), 10)
        clock.now = 500
        storage.sweep()
        assert entry.folder.exists()
    clock.now += 59
    storage.sweep()
    assert entry.folder.exists()
    with storage.page(ANN):
        clock.now += 100  # it came back
        storage.sweep()
        assert entry.folder.exists()
        assert not other.folder.exists()  # whose page was never opened
    clock.now += 60
    storage.sweep()
    assert not entry.folder.exists()


def test_uploads_that_no_page_opens_are_removed(storage: Storage, clock: Clock) -> None:
    with storage.page(ANN), storage.upload("ann", "a.png") as (entry, write):
        write(b"a")
    clock.now = 599
    storage.sweep()
    assert entry.folder.exists()
    clock.now = 600
    storage.sweep()
    assert not entry.folder.exists()


def test_nothing_is_kept_for_ever(storage: Storage, clock: Clock) -> None:
    with storage.page(ANN):
        entry = put(storage, ANN, 10)
        clock.now = 7000
        assert storage.find("ann", entry.id, "a.png") is not None  # it is looked at
        clock.now = 14000
        storage.sweep()
        assert entry.folder.exists()
        clock.now = 14200
        storage.sweep()
        assert not entry.folder.exists()
