"""packaging/conda/recipe.yaml asks for what pyproject.toml asks for, under conda's names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

import patchattn

tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11")

ROOT = Path(__file__).parents[1]
CONDA_NAMES = {"torch": "pytorch"}
"""Where conda-forge calls a package otherwise."""


@pytest.fixture(scope="module")
def recipe() -> Any:
    return yaml.safe_load((ROOT / "packaging" / "conda" / "recipe.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def project() -> Any:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def as_conda(requirements: list[str]) -> set[str]:
    wanted = map(Requirement, requirements)
    return {f"{CONDA_NAMES.get(one.name, one.name)} {one.specifier}" for one in wanted}


def test_the_package_needs_what_the_project_needs(recipe: Any, project: Any) -> None:
    package, tools = (output["requirements"]["run"] for output in recipe["outputs"])
    assert set(package) == {"python >=${{ python_min }}", *as_conda(project["dependencies"])}
    assert f">={recipe['context']['python_min']}" == project["requires-python"]
    own = '${{ pin_subpackage("patchattn", exact=True) }}'
    assert set(tools) == {own, *as_conda(project["optional-dependencies"]["tools"])}


def test_it_is_built_as_the_project_is(recipe: Any, project: Any) -> None:
    build = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    output = recipe["outputs"][0]
    assert set(output["requirements"]["host"]) >= as_conda(tomllib.loads(build)["build-system"]["requires"])
    ((name, function),) = project["scripts"].items()
    assert output["build"]["python"]["entry_points"] == [f"{name} = {function}"]


def test_it_says_of_itself_what_the_project_says(recipe: Any, project: Any) -> None:
    assert recipe["context"]["version"] == patchattn.__version__
    about = recipe["about"]
    assert (about["summary"], about["license"]) == (project["description"], project["license"])
    assert about["license_file"] == project["license-files"]
