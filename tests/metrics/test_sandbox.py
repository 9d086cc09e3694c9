"""Programs that mean harm, or just do not work: each is judged right, and nothing of it is left."""

import os
import struct
import sys
import time
from pathlib import Path
from typing import Any, get_args

import pytest

from genlab.errors import ConfigError, ResourceError
from genlab.metrics import sandbox
from genlab.metrics.sandbox import Sandbox, Way, check_sandbox, remove_whatever_it_is, works
from genlab.metrics.system_calls import call_filter

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
    "a file that is deleted": "import os; os.remove('program.py'); os.rmdir(os.getcwd())",
    "its own parent, killed": "import os; os.kill(os.getppid(), 9); assert os.getppid() == 1; assert False",
    "everybody, killed": "import os; os.kill(-1, 9); assert False",
    "a word that is guessed": "import os\nfor i in range(3, 64):\n    try: os.write(i, b'0' * 32)\n"
    "    except OSError: pass\nassert False",
    "an empty word": "import os; os.closerange(0, 64)",
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


def available(way: Way) -> None:
    """Skips a test of a way that does not work here."""
    if not works(way):
        needs = {"bubblewrap": "bubblewrap is not installed, or may not make namespaces",
                 "namespaces": "this system makes no namespaces for this user",
                 "bounds": "another user than root cannot start this Python"}  # fmt: skip
        pytest.skip(needs[way])


@pytest.mark.parametrize("way", get_args(Way))
def test_nothing_is_left(way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No process of the group, no folder and no open file."""
    available(way)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tmp_path.chmod(0o711)
    before = len(os.listdir("/proc/self/fd"))
    bomb = "import os\nfor _ in range(4):\n    os.fork()\nopen('x', 'w')\nimport time\ntime.sleep(600)"
    assert not Sandbox(seconds=0.8).passes_in(way, bomb)
    deadline = time.monotonic() + 20  # for the system to bury the dead; they are not waited for as long as that
    while (found := [pid for pid in filter(str.isdigit, os.listdir("/proc")) if runs_in(pid, tmp_path)]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.05)
    assert not found
    assert not list(tmp_path.iterdir())
    assert len(os.listdir("/proc/self/fd")) == before


def runs_in(pid: str, folder: Path) -> bool:
    """A program, by where it runs or by what it is told."""
    try:
        told = Path(f"/proc/{pid}/cmdline").read_bytes()
        return os.readlink(f"/proc/{pid}/cwd").startswith(str(folder)) or os.fsencode(folder) in told
    except OSError:
        return False


X86 = os.uname().machine == "x86_64"
# What is tried, with ``c`` the C library; each has to raise OSError, or to give a number below 0.
ATTACKS_ON_FILES = {
    "the kernel's core_pattern": "open('/proc/sys/kernel/core_pattern', 'w')",
    "processes that are seen": "os.listdir('/proc/1')",
    "the evaluation's environment": "open('/proc/1/environ', 'rb')",
    "the memory of the first process": "open('/proc/1/mem', 'rb+')",
    "sysrq": "open('/proc/sysrq-trigger', 'w')",
    "the kernel's settings": "os.listdir('/sys/kernel')",
    "control groups": "os.mkdir('/sys/fs/cgroup/x')",
    "passwords": "open('/etc/shadow')",
    "users": "open('/etc/passwd')",
    "a password": "open(HOME + '/.netrc')",
    "keys": "open(HOME + '/.ssh/id_rsa')",
    "a file of the repository": "open(MARK)",
    "the evaluation's folder of temporary files": "os.listdir(TEMPORARY)",
    "the system's files, written": "open('/usr/bin/x', 'w')",
    "Python's files, written": "open(os.__file__, 'a')",
    "a .pth file": "open(os.path.join(sys.prefix, 'x.pth'), 'w')",
    "the root, written": "open('/x', 'w')",
    "/etc, written": "open('/etc/ld.so.preload', 'w')",
    "a device of one's own": "os.mknod('disk', 0o60600, os.makedev(8, 0)) or open('disk')",
    "the machine's memory": "open('/dev/mem', 'rb')",
    "the kernel's log": "open('/dev/kmsg')",
    "a terminal": "open('/dev/tty', 'w')",
    "a link out": "os.symlink('/etc/shadow', 'link') or open('link')",
    "a hard link out": "os.link('/usr/bin/env', 'env')",
    "a root that is left": "os.listdir('/proc/self/root')",
    "a full disk": "[open(f'f{i}', 'wb').write(bytes(1 << 20)) for i in range(80)]",
    "shared memory that is full": "[open(f'/dev/shm/f{i}', 'wb').write(bytes(1 << 20)) for i in range(40)]",
}
ATTACKS_ON_THE_KERNEL = {
    "a mount": "c.mount(b'tmpfs', b'/tmp', b'tmpfs', 0, None)",
    "proc, mounted": "c.mount(b'proc', b'/program', b'proc', 0, None)",
    "a mount for writing": "c.mount(None, b'/usr', None, 0x1020, None)",
    "proc, taken away": "c.umount2(b'/proc', 2)",
    "a file system, taken away": "c.umount2(b'/usr', 2)",
    "another root": "c.chroot(b'.')",
    "a root that is changed": "c.pivot_root(b'.', b'.')",
    "a user namespace": "c.unshare(0x10000000)",
    "a mount namespace": "c.unshare(0x20000)",
    "another's namespace": "c.setns(0, 0)",
    "root": "os.setuid(0)",
    "root's groups": "os.setgroups([0])",
    "a debugger": "c.ptrace(16, 1, None, None)",
    "another's memory": "c.process_vm_readv(1, None, 0, None, 0, 0)",
    "a machine's name": "c.sethostname(b'x', 1)",
    "a clock that is set": "time.clock_settime(time.CLOCK_REALTIME, 0)",
    "a reboot": "c.reboot(0x1234567)",
    "swap": "c.swapon(b'program.py', 0)",
    "the internet": "socket.socket(socket.AF_INET)",
    "the other internet": "socket.socket(socket.AF_INET6)",
    "the host of a virtual machine": "socket.socket(socket.AF_VSOCK)",
    "packets": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "routes": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "the kernel's ciphers": "socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)",
    "limits that are lifted": "resource.setrlimit(resource.RLIMIT_NPROC, (4096, 4096))",
    "another's limits": "resource.prlimit(1, resource.RLIMIT_AS, (1, 1))",
    "accounting": "c.acct(b'program.py')",
    "a personality": "c.personality(0x0040000)",
}
BY_NUMBER = {  # of x86-64
    "keys of the kernel": 250, "a program for the kernel": 321, "a performance counter": 298, "a page fault": 323,
    "a kernel to boot": 246, "a module": 175, "a module's file": 313, "a file by its handle": 304, "a ring": 425,
    "a file system's context": 430, "a mount that is moved": 429, "mounts that are changed": 442, "a log": 103,
    "another's file": 438, "a call that is there twice": 0x40000000 + 39,
}  # fmt: skip
if X86:
    ATTACKS_ON_THE_KERNEL |= {name: f"c.syscall({number}, 0, 0, 0, 0, 0)" for name, number in BY_NUMBER.items()}
    ATTACKS_ON_THE_KERNEL["a clone in a namespace"] = "c.syscall(56, 0x10000011, 0, 0, 0, 0)"
    ATTACKS_ON_THE_KERNEL["the other clone"] = "c.syscall(435, ctypes.create_string_buffer(88), 88)"


def program_of(attacks: dict[str, str], mark: Path) -> str:
    """That comes to its end only if each of the attacks fails, and otherwise by what it is."""
    return f"""
import ctypes, os, resource, socket, sys, time
c = ctypes.CDLL(None, use_errno=True)
HOME, MARK, TEMPORARY = {str(Path.home())!r}, {str(mark)!r}, {str(mark.parent)!r}
through = []
for name, attack in {attacks!r}.items():
    try:
        found = eval(attack)
        if not isinstance(found, int) or found >= 0:
            through.append(name)
    except (OSError, ValueError):
        pass
assert not through, through
"""


@pytest.mark.parametrize("way", get_args(Way))
def test_every_attack_fails(way: Way, tmp_path: Path) -> None:
    available(way)
    mark = tmp_path / "mark"
    mark.write_text("x")
    attacks = (ATTACKS_ON_THE_KERNEL if call_filter(alone=True) else {}) | (ATTACKS_ON_FILES if way != "bounds" else {})
    if not passes(way, attacks, mark):
        assert [name for name, attack in attacks.items() if not passes(way, {name: attack}, mark)] == []


def passes(way: Way, attacks: dict[str, str], mark: Path) -> bool:
    return Sandbox(seconds=60).passes_in(way, program_of(attacks, mark))


# What answers leave behind; none of it may end an evaluation.
LEFT = {
    "folders nested deeper than Python recurses": "for i in range(1100):\n    os.mkdir('d')\n    os.chdir('d')",
    "long names, nested": "for i in range(40):\n    os.mkdir('d' * 255)\n    os.chdir('d' * 255)",
    "a folder that is closed": "os.mkdir('d')\nopen('d/f', 'w')\nos.chmod('d', 0)",
    "closed folders, nested": "os.makedirs('a/b/c')\nos.chmod('a/b/c', 0)\nos.chmod('a/b', 0)\nos.chmod('a', 0)",
    "a folder that is not its own any more": "os.chmod('.', 0)",
    "names that are no text": "[open(bytes([i]), 'w').close() for i in range(1, 256) if i not in b'/.']",
    "names that look like others": "os.mkdir(b'-rf')\nos.mkdir('*')\nos.mkdir('~')\nos.mkdir('\\n')\nos.mkdir('...')",
    "links to itself": "os.symlink('a', 'b')\nos.symlink('b', 'a')\nos.mkdir('d')\nos.symlink('..', 'd/d')",
    "a pipe and a socket": "os.mkfifo('p')\nimport socket\nsocket.socket(socket.AF_UNIX).bind('s')",
    "many folders": "[os.makedirs(f'{i}/{i}') for i in range(100)]",
    "a program of another name": "os.rename('program.py', 'x')\nos.mkdir('program.py')",
}


def leave(kind: str, folder: Path) -> None:
    """Do here what an answer would."""
    child = os.fork()
    if not child:
        os.chdir(folder)
        exec(LEFT[kind], {"os": os})
        os._exit(0)
    os.waitpid(child, 0)


@pytest.mark.parametrize("kind", LEFT)
def test_what_an_answer_leaves_is_deleted(kind: str, tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f/program.py").touch()
    leave(kind, tmp_path / "f")
    assert remove_whatever_it_is(tmp_path / "f")
    assert not list(tmp_path.iterdir())


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept/below").mkdir(parents=True)
    (tmp_path / "kept/file").touch()
    (tmp_path / "f/d").mkdir(parents=True)
    for there in ("f/link", "f/d/link"):
        (tmp_path / there).symlink_to(tmp_path / "kept")
    assert remove_whatever_it_is(tmp_path / "f")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["below", "file", "kept"]


@pytest.mark.parametrize("way", get_args(Way))
def test_an_answer_that_leaves_much_counts_as_it_is(way: Way) -> None:
    available(way)
    kinds = [kind for kind in LEFT if kind != "a program of another name"]
    each = [f"os.mkdir(where + '/{i}')\nos.chdir(where + '/{i}')\n{LEFT[kind]}" for i, kind in enumerate(kinds)]
    assert Sandbox(seconds=60).passes_in(way, "\n".join(["import os", "where = os.getcwd()", *each]))


def test_what_cannot_be_deleted_counts_as_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    way = sandbox.best_way()
    assert way is not None
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tmp_path.chmod(0o711)
    assert Sandbox(seconds=60).passes_in(way, SOLVED)
    monkeypatch.setattr(Path, "rmdir", refuse)  # as of a file that was made immutable
    assert not Sandbox(seconds=60).passes_in(way, SOLVED)
    assert "that cannot be deleted" in caplog.text


def test_processes_that_cannot_be_started_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    way = sandbox.best_way()
    assert way is not None
    monkeypatch.setattr("subprocess.Popen", refuse)
    with pytest.raises(ResourceError, match=r"has reached its limit.*workers=1"):
        Sandbox().passes_in(way, SOLVED)


ROOT_IS_TOLD = [
    ("bubblewrap", 0, False, None), ("namespaces", 0, False, "apt install bubblewrap.*allow_root=true"),
    ("bounds", 0, False, "allow_root=true"), ("namespaces", 0, True, None), ("bounds", 0, True, None),
    ("namespaces", 1000, False, None), ("bounds", 1000, False, None), (None, 0, True, "another user than root"),
    (None, 1000, False, "Leave it out"),
]  # fmt: skip


@pytest.mark.parametrize(("way", "user", "allow_root", "said"), ROOT_IS_TOLD)
def test_root_needs_bubblewrap_or_a_word(
    way: Way | None, user: int, allow_root: bool, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "best_way", lambda: way)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    if said is None:
        check_sandbox(allow_root, "metrics.pass_at_k")
        return
    with pytest.raises(ConfigError, match=said):
        check_sandbox(allow_root, "metrics.pass_at_k")


def test_where_programs_see_this_users_files_it_is_said() -> None:
    assert "read and write" in sandbox.what_is_open("bounds")
    assert not sandbox.what_is_open("namespaces")
    assert not sandbox.what_is_open("bubblewrap")


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("alone", [True, False])
def test_the_filter_ends_for_every_call(machine: str, alone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run as the kernel does: no jump leads out of it, and what a program needs is allowed."""
    monkeypatch.setattr("platform.machine", lambda: machine)
    audit = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[machine]
    needed = {"x86_64": (0, 1, 9, 12, 39, 59, 60, 231, 257), "aarch64": (63, 64, 222, 214, 172, 221, 93, 94, 56)}
    mounts, kill, clone, socket = {"x86_64": (165, 62, 56, 41), "aarch64": (40, 129, 220, 198)}[machine]
    filtered = call_filter(alone)
    allow, refuse = 0x7FFF0000, 0x00050001
    assert {verdict(filtered, audit, number) for number in needed[machine]} == {allow}
    assert all(verdict(filtered, audit, number) in (allow, refuse, 0x00050026) for number in range(500))
    assert verdict(filtered, audit, mounts) == refuse
    assert verdict(filtered, audit, kill, 1234) == (allow if alone else refuse)
    assert [verdict(filtered, audit, clone, flags) for flags in (0x11, 0x10000011, 0x20011)] == [allow, refuse, refuse]
    assert [verdict(filtered, audit, socket, family) for family in (1, 2, 10, 16, 38, 40)] == [allow, *[refuse] * 5]
    assert verdict(filtered, audit ^ 1, 1) == 0x80000000
    assert verdict(filtered, audit, 0x40000000 + 1) == refuse


def verdict(filtered: bytes, audit: int, number: int, argument: int = 0) -> int:
    data = {0: number, 4: audit, 16: argument}
    lines = list(struct.iter_unpack("<HBBI", filtered))
    value, at = 0, 0
    while True:
        code, yes, no, operand = lines[at]
        at += 1
        if code == 0x06:
            return int(operand)
        if code == 0x20:
            value = data[operand]
        else:
            holds = {0x15: value == operand, 0x35: value >= operand, 0x45: bool(value & operand)}[code]
            at += yes if holds else no


def test_on_other_machines_there_is_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert call_filter(alone=True) == b""
    assert "reach the network" in sandbox.what_is_open("bounds")
