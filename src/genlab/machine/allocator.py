"""How the C library keeps memory that tensors on a CPU have given back."""

import ctypes
import sys
from typing import Any

_LIBRARY: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of glibc's mallopt
_LARGEST = 32 << 20  # bytes, which glibc allows: what is larger is always asked of the kernel
_KEPT = 1 << 30  # bytes at the end of the heap that are not given back
_AHEAD = 64 << 20  # bytes that the heap grows by


def keep_freed_memory() -> None:
    """Have glibc keep freed blocks of up to 32 MiB for the next tensors, in place of asking the kernel for new pages.

    By default, blocks above some hundred kilobytes are mapped and unmapped, and the kernel clears each of their pages:
    a sixth of a U-Net's training step. What is computed stays the same. Other C libraries are left alone.
    """
    if hasattr(_LIBRARY, "gnu_get_libc_version") and hasattr(_LIBRARY, "mallopt"):
        _LIBRARY.mallopt(_MMAP_THRESHOLD, _LARGEST)
        _LIBRARY.mallopt(_TRIM_THRESHOLD, _KEPT)
        _LIBRARY.mallopt(_TOP_PAD, _AHEAD)
