"""What is built into a wheel is what lies in the repository."""

import importlib.metadata
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import genlab

REPOSITORY = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]


def folders_with(root: Path, suffix: str) -> set[str]:
    return {path.parent.relative_to(root).as_posix() for path in root.rglob(f"*{suffix}")}


def test_every_folder_of_code_and_of_configs_is_a_package() -> None:
    code = {
        f"genlab.{name}".replace("/", ".").removesuffix("..") for name in folders_with(REPOSITORY / "src/genlab", ".py")
    }
    configs = {
        f"genlab.configs.{name}".replace("/", ".").removesuffix("..")
        for name in folders_with(REPOSITORY / "configs", ".yaml")
    }
    listed = set(SETUPTOOLS["packages"])
    assert len(SETUPTOOLS["packages"]) == len(listed)
    missing = {name for name in code | configs if "__pycache__" not in name} - listed
    assert not missing
    for name in listed:  # no folder is listed that is gone
        place = "configs/" + name.removeprefix("genlab.configs").lstrip(".").replace(".", "/")
        folder = REPOSITORY / (place if name.startswith("genlab.configs") else "src/" + name.replace(".", "/"))
        assert folder.is_dir(), name


def test_data_files_are_packed() -> None:
    patterns = SETUPTOOLS["package-data"]["*"]
    files = [*(REPOSITORY / "configs").rglob("*.yaml"), *(REPOSITORY / "src/genlab").rglob("*")]
    data = [f for f in files if f.is_file() and f.suffix not in (".py", ".pyc")]
    assert any(f.suffix == ".safetensors" for f in data)
    assert [f.name for f in data if not any(fnmatch(f.name, pattern) for pattern in patterns)] == []


def test_the_version_is_one() -> None:
    assert genlab.__version__ == PROJECT["project"]["version"] == importlib.metadata.version("genlab")
