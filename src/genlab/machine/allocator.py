"""How the C library keeps memory that tensors on a CPU have given back."""

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of glibc's mallopt
_LARGEST = 32 << 20  # bytes, which glibc allows: what is larger is always asked of the kernel
_KEPT = 1 << 30  # bytes at the end of the heap that are not given back
_AHEAD = 64 << 20  # bytes that the heap grows by


def keep_freed_memory() -> None:
    """Have glibc keep freed blocks of up to 32 MiB for the next tensors, in place of asking the kernel for new pages.

    By default, blocks above some hundred kilobytes are mapped and unmapped, and the kernel clears each of their pages:
    a sixth of a U-Net's training step. What is computed stays the same. Other C libraries are left alone.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version") and hasattr(library, "mallopt"):
        library.mallopt(_MMAP_THRESHOLD, _LARGEST)
        library.mallopt(_TRIM_THRESHOLD, _KEPT)
        library.mallopt(_TOP_PAD, _AHEAD)
