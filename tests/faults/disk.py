"""A disk that is full after so many bytes."""

import builtins
import errno
import io
import os
from pathlib import Path
from typing import Any

from faults.life import Shared


def fill_up(folder: Path, room: int | None, written: Shared) -> None:
    """In a child: files that Python opens below ``folder`` take ``room`` bytes in all, or any number; ``written`` says
    how many there have been."""
    real = io.open
    below = str(folder)

    class Counted(io.FileIO):
        def write(self, content: Any) -> int:
            data = memoryview(content).cast("B")
            if room is not None and len(data) > room - written.get():
                data = data[: room - written.get()]  # like a real one, it takes what fits
                if not data:
                    raise OSError(errno.ENOSPC, "No space left on device")
            taken = super().write(data)
            written.set(written.get() + taken)
            return taken

    def open_counted(
        file: Any, mode: str = "r", buffering: int = -1, encoding: Any = None, errors: Any = None, newline: Any = None,
        closefd: bool = True, opener: Any = None,
    ) -> Any:  # fmt: skip
        is_read = not set(mode) & set("wax+")
        where = os.readlink(f"/proc/self/fd/{file}") if isinstance(file, int) and not is_read else str(file)
        if is_read or not where.startswith(below):
            return real(file, mode, buffering, encoding, errors, newline, closefd, opener)
        raw = Counted(
            file if isinstance(file, int) else str(file), mode.replace("b", "").replace("t", ""), closefd, opener
        )
        if buffering == 0:
            return raw
        stream: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return stream if "b" in mode else io.TextIOWrapper(stream, encoding, errors, newline)

    io.open = builtins.open = open_counted  # type: ignore[assignment]
