"""The tools of a release: two builds compared, the bill of materials, checksums, the Containerfile's steps."""

from __future__ import annotations

import hashlib
import shutil
import sys
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

import patchattn
from tools import checksums, container, sbom

ROOT = Path(__file__).parents[1]


def wheel(path: Path, content: str, second: int = 0, name: str = "a.py") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("same.py", (2020, 2, 2, 0, 0, 0)), "same")
        archive.writestr(zipfile.ZipInfo(name, (2020, 2, 2, 0, 0, second)), content)
    return path


@pytest.mark.needs("cpu")
def test_what_differs_between_two_builds_is_named(tmp_path: Path) -> None:
    from tools.reproduce import differences

    first = wheel(tmp_path / "first.whl", "1")
    assert differences(first, Path(shutil.copy(first, tmp_path / "copy.whl"))) == []
    for other in (("2", 0, "a.py"), ("1", 2, "a.py")):
        assert differences(first, wheel(tmp_path / "other.whl", *other)) == ["first.whl: a.py differs"]
    renamed = wheel(tmp_path / "other.whl", "1", 0, "b.py")
    assert differences(first, renamed) == ["first.whl: a.py differs", "first.whl: b.py differs"]
    assert differences(first, tmp_path / "none.whl") == ["first.whl: the second build has none"]
    longer = tmp_path / "longer.whl"
    longer.write_bytes(b" " + first.read_bytes())
    assert differences(first, longer) == ["first.whl: the archive itself differs"]


def test_the_bill_lists_what_the_package_needs_and_nothing_else() -> None:
    names = {canonicalize_name(one.metadata["Name"]): one.version for one in distributions()}
    everything = {
        "metadata": {"component": {"bom-ref": "root", "name": "patchattn"}},
        "components": [{"name": name, "version": own, "bom-ref": name} for name, own in names.items()],
        "dependencies": [],
    }
    bill = sbom.narrowed(everything)
    scopes = {one["name"]: one["scope"] for one in bill["components"]}
    assert {name for name in ("torch", "numpy", "numba", "llvmlite", "jaxtyping") if scopes[name] == "required"} == {
        "torch", "numpy", "numba", "llvmlite", "jaxtyping"
    }  # fmt: skip
    assert scopes["typer"] == scopes["pillow"] == "optional"
    assert not {"pytest", "hypothesis", "patchattn", "scikit-image", "mypy"} & scopes.keys()
    edges = {edge["ref"]: edge["dependsOn"] for edge in bill["dependencies"]}
    assert "llvmlite" in edges["numba"]
    assert {"torch", "typer"} < set(edges["root"])
    assert bill["metadata"]["component"]["purl"] == f"pkg:pypi/patchattn@{patchattn.__version__}"


def test_a_bill_that_lacks_something_is_refused() -> None:
    with pytest.raises(SystemExit, match=r"jaxtyping, .*numba.* is needed and is not in the environment"):
        sbom.narrowed({"components": [], "metadata": {"component": {"bom-ref": "root"}}})


def test_checksums_are_those_of_all_files(tmp_path: Path) -> None:
    for name in ("b", "a", "SHA256SUMS"):
        (tmp_path / name).write_text(name)
    checksums.main(tmp_path)
    expected = [f"{hashlib.sha256(name.encode()).hexdigest()}  {name}" for name in ("a", "b")]
    assert (tmp_path / "SHA256SUMS").read_text().splitlines() == expected


def test_a_container_runs_as_a_user_and_serves_the_page_with_a_token() -> None:
    build, final = container.stages((ROOT / "Containerfile").read_text(encoding="utf-8"))
    last = dict(final)
    assert last["USER"].isdigit()
    assert int(last["USER"]) > 0
    assert last["ENTRYPOINT"] == '["patchattn"]'
    assert last["CMD"] == '["demo", "--host", "0.0.0.0", "--port", "7860"]'
    assert not [rest for name, rest in (*build, *final) if name in ("ENV", "ARG") and "PASSWORD" in rest]


def test_what_a_container_is_built_of_is_not_ignored() -> None:
    lines = (ROOT / ".containerignore").read_text(encoding="utf-8").splitlines()
    kept = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert kept == {
        "src", "tools", "README.md", "LICENSE", "constraints.txt", "hatch_build.py", "pyproject.toml"
    }  # fmt: skip
    assert all((ROOT / name).exists() for name in kept)


@pytest.mark.skipif(sys.platform == "win32", reason="the steps are for a shell of POSIX")
def test_steps_that_are_not_known_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("venv.create", lambda folder, with_pip: None)
    machine = container.Emulated(tmp_path, tmp_path)
    with pytest.raises(SystemExit, match="VOLUME is not known here"):
        machine.follow("VOLUME", "/data")
    machine.follow("ENV", "FIRST=1 SECOND='a b'")
    assert (machine.environment["FIRST"], machine.environment["SECOND"]) == ("1", "a b")
    machine.follow("WORKDIR", "/work")
    assert machine.work == tmp_path / "work"
    machine.follow("RUN", "echo $FIRST > made && rm made && ! command -v gcc")
    assert [*machine.work.iterdir()] == []
