"""What is built into a wheel is what lies in the repository."""

import importlib.metadata
import runpy
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import setuptools

import genlab

REPOSITORY = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]


def test_every_folder_of_code_is_a_package() -> None:
    """setup.py finds them by it; folders of configs need none."""
    folders = {path.parent for path in (REPOSITORY / "src/genlab").rglob("*.py")}
    assert sorted(str(folder) for folder in folders if not (folder / "__init__.py").exists()) == []


def test_every_folder_of_code_and_of_configs_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", given.update)
    monkeypatch.chdir(REPOSITORY)
    runpy.run_path("setup.py")
    roots = ((REPOSITORY / "src", ".py", ""), (REPOSITORY / "configs", ".yaml", "genlab.configs."))
    there = {
        above + ".".join(path.parent.relative_to(root).parts)
        for root, suffix, above in roots
        for path in root.rglob(f"*{suffix}")
    }
    assert {name.removesuffix(".") for name in there} == set(given["packages"])
    assert len(given["packages"]) == len(set(given["packages"]))


def test_data_files_are_packed() -> None:
    patterns = SETUPTOOLS["package-data"]["*"]
    files = [*(REPOSITORY / "configs").rglob("*.yaml"), *(REPOSITORY / "src/genlab").rglob("*")]
    data = [f for f in files if f.is_file() and f.suffix not in (".py", ".pyc")]
    assert any(f.suffix == ".safetensors" for f in data)
    assert [f.name for f in data if not any(fnmatch(f.name, pattern) for pattern in patterns)] == []


def test_the_version_is_one() -> None:
    assert genlab.__version__ == PROJECT["project"]["version"] == importlib.metadata.version("genlab")
