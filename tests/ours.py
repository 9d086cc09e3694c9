"""Classes of the tests stand in configs: their folders are places (genlab.trust.places) while tests run."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

TESTS = Path(__file__).parent


def confirm() -> None:
    """For this process, and those that it starts."""
    folder = Path(tempfile.mkdtemp(prefix="genlab-tests-"))
    atexit.register(_remove, folder, os.getpid())
    (folder / "genlab").mkdir()
    folders = [TESTS, *(path for path in sorted(TESTS.iterdir()) if path.is_dir() and path.name[0] not in "._")]
    (folder / "genlab/trusted").write_text("".join(f"{path}\n" for path in folders))
    os.environ["XDG_CONFIG_HOME"] = str(folder)


def _remove(folder: Path, owner: int) -> None:
    """A forked process ends without taking away what its parent still needs."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
