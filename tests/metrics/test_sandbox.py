"""Programs that mean harm, or just do not work: each is judged right, and nothing of it is left."""

import os
import sys
import time
from pathlib import Path

import pytest

from genlab.metrics import sandbox
from genlab.metrics.sandbox import Sandbox, is_apart

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="bounds are Linux's")

SOLVED = "def f(x):\n    return x + 1\n\nassert f(1) == 2"
FAILS = {
    "an exception": "assert 1 == 2",
    "a syntax error": "def",
    "success that is claimed": "import sys; sys.exit(0)",
    "success that is claimed at once": "import os; os._exit(0)",
    "an endless loop": "while True: pass",
    "a long sleep": "import time; time.sleep(600)",
    "a memory hog": "x = []\nwhile True: x.append(bytes(1 << 26))",
    "a flood of output": "while True: print('x' * 100000)",
    "a large file": "open('x', 'wb').write(bytes(2 << 20))",
    "a signal": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "a question": "input()",
    "deep recursion": "def f(n): return f(n + 1)\nf(0)",
    "bounds lifted": "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))\nbytearray(1 << 31)",
    "a bomb": "import os\nfor _ in range(9):\n    os.fork()\nwhile True: pass",
}
PASSES = {
    "a solution": SOLVED,
    "a library": "import numpy as np\nassert np.eye(3).sum() == 3",
    "a file of its own": "open('x', 'w').write('1'); assert open('x').read() == '1'",
    "output": "print('x' * 100000)",
    "no environment": "import os; assert not {'PATH', 'PYTHONPATH', 'USER', 'SECRET'} & set(os.environ)",
    "an empty folder": "import os; assert os.listdir() == ['program.py']",
    "its own name": "assert __name__ == '__main__'",
    "both of a pair": "import os; os.fork()",
    "half a character": "x = '\udcff'",
}


@pytest.mark.parametrize("kind", FAILS)
def test_what_does_not_work(kind: str) -> None:
    assert not Sandbox(seconds=0.8, memory=1 << 28).passes(FAILS[kind])


@pytest.mark.parametrize("kind", PASSES)
def test_what_works(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    assert Sandbox(seconds=60).passes(PASSES[kind])


@pytest.mark.parametrize("apart", [True, False])
def test_nothing_is_left(apart: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No process of the group, no folder and no open file; with namespaces or without."""
    if not apart:
        monkeypatch.setattr(sandbox, "_apart", lambda: ())
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before, sign = len(os.listdir("/proc/self/fd")), f"{os.getpid()}.{time.monotonic_ns()}"
    bomb = f"import os\nfor _ in range(5):\n    os.fork()\nopen('{sign}', 'w')\nimport time\ntime.sleep(600)"
    assert not Sandbox(seconds=0.8).passes(bomb)
    deadline = time.monotonic() + 20  # for the system to bury the dead; they are not waited for as long as that
    while (found := [pid for pid in filter(str.isdigit, os.listdir("/proc")) if runs_in(pid, tmp_path)]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.05)
    assert not found
    assert not list(tmp_path.iterdir())
    assert len(os.listdir("/proc/self/fd")) == before


def runs_in(pid: str, folder: Path) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/cwd").startswith(str(folder))
    except OSError:
        return False


def test_where_namespaces_are_there_is_no_network() -> None:
    if not is_apart():
        pytest.skip("this system makes no namespaces")
    alone = """
import os, socket
assert [name for _, name in socket.if_nameindex()] == ["lo"]
try:
    socket.create_connection(("127.0.0.1", 9), 1)
except OSError as error:
    assert error.errno == 101  # unreachable: not even this machine
else:
    raise AssertionError
assert len([name for name in os.listdir("/proc") if name.isdigit()]) == 2, 'and a shell'
"""
    assert Sandbox(seconds=60).passes(alone)


def test_files_outside_are_not_protected(tmp_path: Path) -> None:
    """As the module says. Who makes this better changes the test."""
    target = tmp_path / "outside"
    assert Sandbox(seconds=60).passes(f"open({str(target)!r}, 'w').write('x')")
    assert target.read_text() == "x"
