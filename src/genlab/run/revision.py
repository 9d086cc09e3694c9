"""The code revision: the commit of a clone or of a pip installation, or a hash of the source files."""

import hashlib
import json
import subprocess
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def revision(package: Path = _PACKAGE) -> str:
    """Of a clone, ``<commit>``, with ``+changes`` if files differ from it; of an installed package, the commit that pip
    took it from; where neither is known, ``sha256:<16 hex digits>`` of the Python files."""
    return _of_clone(package.parents[1]) or _of_pip() or _of_files(package)


def _of_clone(root: Path) -> str | None:
    if not (root / ".git").exists():
        return None
    try:
        git = ["git", "-C", str(root)]
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}+changes" if changed.strip() else commit


def _of_pip() -> str | None:
    """Of ``pip install git+https://...``, which writes down the commit (PEP 610)."""
    try:
        written = distribution("genlab").read_text("direct_url.json")
        return json.loads(written or "{}").get("vcs_info", {}).get("commit_id")
    except (PackageNotFoundError, ValueError, AttributeError):
        return None


def _of_files(package: Path) -> str:
    content = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        content.update(f"{path.relative_to(package).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return f"sha256:{content.hexdigest()[:16]}"
