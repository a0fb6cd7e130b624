"""Write the layers and their Triton kernels as a kernel for Hugging Face's `kernels`.

python tools/hub_kernel.py FOLDER

The folder is what a kernel repository holds: `build/torch-universal`, in pure Python, and its README. A kernel is
imported from a path, under a name of its own, several versions side by side, so that its modules import each other
relatively, and register operators in a namespace of that name. It may need PyTorch and Triton alone, and NumPy, without
which PyTorch and Triton are not installed: the CPU's kernels, which need Numba, stay behind, and jaxtyping's shapes,
which document the arguments, are replaced by the plain types. On the CPU a kernel computes by the reference.

    from kernels import get_local_kernel

    patchattn = get_local_kernel(Path("out/hub"))
    patchattn.patch_attention(query, key, value)
"""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "patchattn"
VARIANT = Path("build") / "torch-universal"
PUBLIC = ("attention", "block_masks", "field", "matching", "similarity")
"""The modules whose names of `patchattn/__init__.py` the kernel has."""
LOADED_BY_NAME = ("kernels.reference", "kernels.gpu", "ops.methods")
"""Modules that no other imports: registries do."""
INIT = '''"""Global attention between images at any resolution, in memory linear in the number of pixels."""

{imports}

from .backends import DEVICES

DEVICES["cpu"] = "reference"  # the compiled kernels of the CPU come with the package `patchattn` alone

__version__ = "{version}"

__all__ = {names}
'''
SHAPES = '''"""The names of `jaxtyping`, for annotations: `Float[Tensor, "B C"]` is a tensor."""

from __future__ import annotations

from typing import Any


class _Shaped:
    def __class_getitem__(cls, arguments: tuple[Any, str]) -> Any:
        return arguments[0]


Bool = Float = Int = Int32 = Int64 = _Shaped
'''
CPU = '''"""The compiled kernels of the CPU come with the package `patchattn` alone."""

raise ImportError("a kernel of the Hub has none of the CPU's compiled kernels; the package `patchattn` has them")
'''
COMPATIBILITY = '''"""The kernel, for releases of `kernels` that look for it in a folder of its name."""

import importlib.util
import sys
from pathlib import Path

_spec = importlib.util.spec_from_file_location("{id}", Path(__file__).parents[1] / "__init__.py")
_kernel = sys.modules.get(_spec.name)
if _kernel is None:
    _kernel = sys.modules[_spec.name] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(_kernel)
globals().update({{name: getattr(_kernel, name) for name in _kernel.__all__}})
__all__ = _kernel.__all__
'''
README = """---
license: mit
tags: [kernels]
---

# patchattn

{description}

```python
from kernels import get_kernel

patchattn = get_kernel("OWNER/patchattn", version={version}, trust_remote_code=["OWNER/patchattn"])
output = patchattn.patch_attention(query, key, value, k=3, patch_size=7)
```

Tensors are `(B, C, *spatial)`. On CUDA, ROCm and XPU the kernels are Triton's; elsewhere plain PyTorch computes it.
Needed are Python 3.10, PyTorch 2.6, Triton 3.4 and NumPy. What there is: {names}.
"""


def path_of(module: str) -> Path:
    """The file of a module, named without the package's own name."""
    path = PACKAGE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def own_imports(tree: ast.AST) -> Iterator[ast.ImportFrom]:
    """The statements that import from this package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.split(".")[0] == "patchattn":
            yield node
        if isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "patchattn" for alias in node.names):
            raise SystemExit(f"hub_kernel: line {node.lineno}: `import patchattn` cannot be made relative")


def imported(module: str) -> Iterator[str]:
    """The modules of this package that one imports, with the packages that they are in."""
    for node in own_imports(ast.parse(path_of(module).read_text(encoding="utf-8"))):
        assert node.module is not None
        source = node.module.partition(".")[2]
        for name in (source, *(f"{source}.{alias.name}".removeprefix(".") for alias in node.names)):
            if name and path_of(name).exists():
                yield name


def needed() -> list[str]:
    """All modules that the kernel is made of."""
    left, seen = {*PUBLIC, *LOADED_BY_NAME}, set[str]()
    while left:
        module = left.pop()
        seen.add(module)
        parents = {module.rsplit(".", depth)[0] for depth in range(1, module.count(".") + 1)}
        left |= ({*imported(module)} | parents) - seen
    return sorted(seen)


def as_relative(module: str) -> str:
    """The source of a module, with relative imports, and without `jaxtyping`."""
    path = path_of(module)
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    dots = "." * len(path.relative_to(PACKAGE).parts)
    tree = ast.parse(text)
    for node in own_imports(tree):
        assert node.module is not None
        target = dots + node.module.partition(".")[2]
        line = lines[node.lineno - 1]
        lines[node.lineno - 1] = line.replace(f"from {node.module} import", f"from {target} import", 1)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "jaxtyping":
            line = lines[node.lineno - 1]
            lines[node.lineno - 1] = line.replace("from jaxtyping", f"from {dots}shapes", 1)
    return "".join(lines)


def public_names() -> dict[str, list[str]]:
    """For each public module the names that the package has from it."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    found = {node.module.partition(".")[2]: node for node in own_imports(tree) if node.module is not None}
    return {module: [alias.name for alias in found[module].names] for module in PUBLIC}


def version() -> str:
    for node in ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
            return str(ast.literal_eval(node.value))
    raise SystemExit("hub_kernel: patchattn/__init__.py has no __version__")


def sources() -> dict[str, str]:
    """Text of each file, by its path in the variant; but for the metadata, and what holds the identifier."""
    files = {path_of(module).relative_to(PACKAGE).as_posix(): as_relative(module) for module in needed()}
    exported = public_names()
    imports = "\n".join(f"from .{module} import {', '.join(names)}" for module, names in exported.items())
    names = sorted(name for own in exported.values() for name in own)
    files["__init__.py"] = INIT.format(imports=imports, version=version(), names=names)
    return files | {"shapes.py": SHAPES, "kernels/cpu/__init__.py": CPU}


def write(folder: Path) -> None:
    """Write the repository; what was there of a former one is removed."""
    files = sources()
    shutil.rmtree(folder / "build", ignore_errors=True)
    content = "".join(f"{path}\n{text}" for path, text in sorted(files.items()))
    name = f"_patchattn_{hashlib.sha256(content.encode()).hexdigest()[:7]}"
    files["patchattn/__init__.py"] = COMPATIBILITY.format(id=name)
    for path, text in files.items():
        target = folder / VARIANT / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8", newline="\n")
    major = int(version().partition(".")[0])
    metadata = {
        "id": name,
        "name": "patchattn",
        "version": major,
        "license": "mit",
        "python-depends": [],
        "backend": {"type": "cuda"},  # one must be named; a universal variant is taken by all
        "digest": {"algorithm": "sha256", "files": {path: digest(text) for path, text in sorted(files.items())}},
    }
    (folder / VARIANT / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
    description = ast.get_docstring(ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8")))
    names = ", ".join(f"`{name}`" for own in public_names().values() for name in own)
    text = README.format(description=description, version=major, names=names)
    (folder / "README.md").write_text(text, encoding="utf-8")


def digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


if __name__ == "__main__":
    target = Path(sys.argv[1])
    write(target)
    print(f"{target / VARIANT} has {sum(1 for path in (target / VARIANT).rglob('*.py'))} files")
