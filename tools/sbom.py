"""Write the bill of materials of a release: what `patchattn` and `patchattn[tools]` install, by version.

python tools/sbom.py FOLDER

CycloneDX's tool describes the environment that runs this, which holds development tools too. Kept is what the package
needs, with all that those need in turn; `scope` says what comes with `tools` alone. Two runs write the same bytes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

Place = tuple[str, str]
"""The name of a package, and of one of its extras; "" for the package without any."""

ROOT = Path(__file__).parents[1]
TOOLS = "tools"
"""The extra that the environment has for certain: kernels are compiled by running the tools."""


def describe_environment() -> dict[str, Any]:
    """All packages of this environment, as CycloneDX's tool writes them, with this one at the root."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--pyproject", ROOT / "pyproject.toml"]
    options = ["--mc-type", "library", "--output-reproducible", "--spec-version", "1.6", sys.executable]
    done = subprocess.run([*command, *options], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def requirements_of(name: str, extra: str = "") -> set[Place]:
    """What an installed package asks for on this system, with an extra or, with "", without any."""
    wanted = [Requirement(text) for text in requires(name) or ()]
    wanted = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": extra})]
    return {(canonicalize_name(one.name), own) for one in wanted for own in ("", *one.extras)}


def reached(places: Iterable[Place]) -> set[str]:
    """These packages, and what they need in turn."""
    left, seen = set(places), set()
    while left:
        place = left.pop()
        seen.add(place)
        left |= requirements_of(*place) - seen
    return {name for name, _ in seen}


def narrowed(bill: dict[str, Any]) -> dict[str, Any]:
    """The same bill with what the package needs alone."""
    own = requirements_of("patchattn", TOOLS)  # a requirement without a marker is one of any extra
    core, all_of_it = reached(requirements_of("patchattn")), reached(own)
    components = [one for one in bill["components"] if canonicalize_name(one["name"]) in all_of_it]
    missing = all_of_it - {canonicalize_name(one["name"]) for one in components}
    if missing:
        raise SystemExit(f"sbom: {', '.join(sorted(missing))} is needed and is not in the environment")
    for one in components:
        one["scope"] = "required" if canonicalize_name(one["name"]) in core else "optional"
    references = {canonicalize_name(one["name"]): one["bom-ref"] for one in components}
    root = bill["metadata"]["component"]
    root |= {"version": version("patchattn"), "purl": f"pkg:pypi/patchattn@{version('patchattn')}"}
    wanted = {root["bom-ref"]: own} | {reference: requirements_of(name) for name, reference in references.items()}
    edges = [
        {"ref": reference, "dependsOn": sorted({references[name] for name, _ in places})}
        for reference, places in sorted(wanted.items())
    ]
    return bill | {"components": components, "dependencies": edges}


def check(text: str) -> None:
    """Hold a bill against CycloneDX's schema."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if error is not None:
        raise SystemExit(f"sbom: {error}")


def main(folder: Path) -> None:
    file = folder / f"patchattn-{version('patchattn')}.cdx.json"
    bill = narrowed(describe_environment())
    text = json.dumps(bill, indent=2, sort_keys=True) + "\n"
    check(text)
    file.write_text(text, encoding="utf-8")
    print(f"{file.name} lists {len(bill['components'])} packages")


if __name__ == "__main__":
    os.environ.pop("PYTHONPATH", None)  # the installed packages are described, not what a shell adds
    main(Path(sys.argv[1]))
