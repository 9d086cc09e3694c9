"""Freed memory is kept, where glibc is there to be told so."""

import ctypes
from typing import Any

import pytest

from genlab.machine import allocator
from genlab.machine.allocator import keep_freed_memory


class Library:
    """A C library that writes down what it is told."""

    def __init__(self) -> None:
        self.told: dict[int, int] = {}

    def mallopt(self, option: int, value: int) -> int:
        self.told[option] = value
        return 1


class Glibc(Library):
    def gnu_get_libc_version(self) -> None: ...


def told(monkeypatch: pytest.MonkeyPatch, library: Any) -> dict[int, int]:
    monkeypatch.setattr(allocator, "_LIBRARY", library)
    keep_freed_memory()
    return library.told  # type: ignore[no-any-return]


def test_glibc_keeps_blocks_and_the_end_of_its_heap(monkeypatch: pytest.MonkeyPatch) -> None:
    """As mallopt(3) has them: M_TRIM_THRESHOLD is -1, M_TOP_PAD -2, M_MMAP_THRESHOLD -3, of at most 32 MiB."""
    assert told(monkeypatch, Glibc()) == {-3: 2**25, -1: 2**30, -2: 2**26}


def test_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(monkeypatch, Library()) == {}, "musl, or an allocator in its place"
    monkeypatch.setattr(allocator, "_LIBRARY", None)
    keep_freed_memory()


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="the C library is not glibc")
def test_this_glibc_takes_them() -> None:
    assert ctypes.CDLL(None).mallopt(-3, 2**25) == 1, "one byte more would be refused"
