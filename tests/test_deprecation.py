"""Old places of names that have moved."""

from __future__ import annotations

import subprocess
import sys
import warnings
from types import ModuleType

import pytest

import patchattn
from patchattn.deprecation import moved_names

MOVED = {"search": "patchattn.matching:match", "fields": "patchattn.field", "gone": "patchattn.nowhere:nothing"}


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("old_place")
    module.__getattr__ = moved_names("old_place", MOVED)  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "old_place", module)
    return module


def test_a_moved_name_works_and_warns_where_it_is_used(old: ModuleType) -> None:
    message = r"^old_place\.search has moved to patchattn\.matching\.match; the old name is removed in 1\.0\.$"
    with pytest.warns(DeprecationWarning, match=message) as caught:
        assert old.search is patchattn.match
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_importing_a_moved_name_works_and_warns(old: ModuleType) -> None:
    with pytest.warns(DeprecationWarning, match=r"old_place.search has moved to patchattn.matching.match;"):
        from old_place import search
    assert search is patchattn.match


def test_a_moved_module_is_the_module(old: ModuleType) -> None:
    with pytest.warns(DeprecationWarning, match=r"old_place.fields has moved to patchattn.field;"):
        assert old.fields is sys.modules["patchattn.field"]


def test_other_names_are_missing_as_in_every_module(old: ModuleType) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(AttributeError, match=r"^module 'old_place' has no attribute 'serach'$") as caught:
            _ = old.serach
        assert not hasattr(old, "__path__")
    assert caught.value.name == "serach"


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    code = (
        "import sys\n"
        "from patchattn.deprecation import moved_names\n"
        "__getattr__ = moved_names('old', {'now': 'sched:scheduler'})\n"
        "assert 'sched' not in sys.modules\n"
        "__getattr__('now')\n"
        "assert 'sched' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
