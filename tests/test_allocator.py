"""Freed memory is kept, where glibc is there to be told so."""

import ctypes
import subprocess
import sys

import pytest

KEEPS = """
import resource, torch
from genlab.machine.allocator import keep_freed_memory
{call}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    [torch.zeros(2_000_000) for _ in range(10)]
before = faults()
for _ in range(5):
    [torch.zeros(2_000_000) for _ in range(10)]  # 80 MB: 19,531 pages
print(faults() - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="the C library is not glibc")
def test_the_pages_of_a_freed_tensor_are_used_again() -> None:
    counted = {}
    for call in ("keep_freed_memory()", ""):
        done = subprocess.run(
            [sys.executable, "-c", KEEPS.format(call=call)], capture_output=True, text=True, check=True
        )
        counted[call] = int(done.stdout)
    assert counted["keep_freed_memory()"] < 1000 < counted[""]
