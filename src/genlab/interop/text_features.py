"""Outputs of a frozen text encoder, kept on disk under the hash of its weights: a caption is encoded once."""

import hashlib
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_MOST = 200_000  # texts in a file; more are encoded every time
_IN_MEMORY = 20_000  # texts
_PATIENCE = 10.0  # seconds that one process waits for another's writing


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """A hash of all tensors and their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.view(torch.uint8).numpy().tobytes() if value.ndim else str(value.item()).encode())
    return digest.hexdigest()


class TextFeatures:
    """Rows of float32 by text, in memory and in an SQLite file, which several processes may use at once.

    Where the file cannot be written, or is damaged, only memory is used: what is kept can be computed again.
    """

    def __init__(self, folder: Path, fingerprint: str, width: int):
        """``width``: of the outputs, (rows, width) for a text."""
        self.path, self.width = folder / f"text-features-{fingerprint[:40]}.sqlite", width
        self._memory: dict[str, Tensor] = {}
        self._file: sqlite3.Connection | None = None
        with suppress(OSError, sqlite3.Error):
            folder.mkdir(parents=True, exist_ok=True)
            file = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
            file.execute("CREATE TABLE IF NOT EXISTS features (text BLOB PRIMARY KEY, rows BLOB NOT NULL)")
            self._file = file

    def get(self, text: str) -> Tensor | None:
        """(rows, width) float32, or None if it is not there."""
        if (found := self._memory.get(text)) is not None or self._file is None:
            return found
        with suppress(sqlite3.Error):
            row = self._file.execute("SELECT rows FROM features WHERE text = ?", (_key(text),)).fetchone()
            if row is not None and len(row[0]) > 0 and len(row[0]) % (4 * self.width) == 0:
                found = torch.from_numpy(np.frombuffer(row[0], dtype="<f4").reshape(-1, self.width).copy())
                self._keep(text, found)
        return found

    def put(self, text: str, rows: Tensor) -> None:
        """``rows``: (rows, width) float32, on the CPU."""
        self._keep(text, rows)
        if self._file is None:
            return
        with suppress(sqlite3.Error):
            (count,) = self._file.execute("SELECT COUNT(*) FROM features").fetchone()
            if count < _MOST:
                content = rows.contiguous().numpy().astype("<f4").tobytes()
                self._file.execute("INSERT OR IGNORE INTO features VALUES (?, ?)", (_key(text), content))

    def _keep(self, text: str, rows: Tensor) -> None:
        if len(self._memory) < _IN_MEMORY:
            self._memory[text] = rows


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
