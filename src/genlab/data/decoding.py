"""Decodes many image files on all CPUs."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from genlab.data.decode import DECODER, Bits, Channels, SixteenBits, Size, UnreadableImageError, decode
from genlab.data.image_files import ImageFile
from genlab.errors import DataError
from genlab.files.paths import read_path
from genlab.progress import progress

_BAD_FRACTION = 0.001  # of the files of a split that on_bad=skip may leave out
_TASK = 32  # files that a thread decodes at a time

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(
    items: Iterable[Item], work: Callable[[Item], Result], title: str, total: int | None
) -> Iterator[Result]:
    """``work`` of each item, in order, by threads: Pillow releases Python's lock while it decodes.

    ``items`` are read as they are needed, a few tasks ahead, so neither they nor the results pile up in memory.
    """
    threads = os.cpu_count() or 1
    source, pending = iter(items), deque[Future[list[Result]]]()
    with progress(title, total) as advance, ThreadPoolExecutor(threads) as pool:
        while True:
            while len(pending) <= 2 * threads and (task := list(islice(source, _TASK))):
                pending.append(pool.submit(lambda task: [work(item) for item in task], task))
            if not pending:
                return
            results = pending.popleft().result()
            yield from results
            advance(len(results))


class FileDecoding:
    """Decodes the files of a split."""

    def __init__(
        self,
        root: str,  # what the names of the files are relative to
        files: Sequence[ImageFile],
        image_size: Size | None,  # side, or (height, width); None: the files are squares of one size
        channels: Channels,
        crop: int | None = None,  # side of the centered square that is kept; None: the largest there is
        on_bad: Literal["stop", "skip"] = "stop",  # a damaged file: stop, or leave out up to 0.1 % of the files
        expected: int | None = None,  # side that files of their own size must have; None: that of the first
        remedy: str = "Remove it, or set data.on_bad=skip (max 0.1 %).",  # for a damaged file
        bits: Bits = 8,  # of a channel
    ):
        self.root, self.files, self.image_size, self.channels, self.crop = root, files, image_size, channels, crop
        self.on_bad, self.expected, self.remedy, self.bits = on_bad, expected, remedy, bits

    def key(self) -> str:
        """A cache key made of all that the pixels depend on."""
        digest = hashlib.blake2b(digest_size=16)
        wide = () if self.bits == 8 else (self.bits,)
        digest.update(repr((DECODER, self.image_size, self.channels, self.crop, self.on_bad, *wide)).encode())
        for file in self.files:
            digest.update(repr((file.name, file.size, file.modified)).encode())
        return f"images-{digest.hexdigest()}"

    def rows(self) -> Iterator[np.ndarray | None]:
        """(C, H, W) uint8, or uint16, of each file in order, None for a damaged one that is skipped.

        Raises:
            DataError: a file is damaged, or of another size than the others if no image_size is set.
        """
        bad = 0
        title = f"decoding {len(self.files):,} images"
        results = in_parallel(self.files, self._decode, title, len(self.files))
        for file, result in zip(self.files, results, strict=True):
            if isinstance(result, UnreadableImageError):
                bad += 1
                self._refuse_bad(file, result, bad)
                yield None
            else:
                self._check_size(file, result)
                yield result

    def _decode(self, file: ImageFile) -> np.ndarray | UnreadableImageError:
        try:
            return decode(self._path(file), self.image_size, self.channels, self.crop, "", self.bits)
        except SixteenBits as error:
            raise DataError(f"{error} Set data.bits=16 data.channels=1.") from error
        except UnreadableImageError as error:
            return error

    def _path(self, file: ImageFile) -> Path:
        return read_path(self.root) / file.name

    def _refuse_bad(self, file: ImageFile, error: UnreadableImageError, bad: int) -> None:
        if self.on_bad == "stop":
            raise DataError(f"cannot read image {self._path(file)} ({error}). {self.remedy}")
        if bad > _BAD_FRACTION * len(self.files):
            raise DataError(
                f"more than 0.1 % of the {len(self.files)} images in {self.root} cannot be read, "
                f"such as {self._path(file)} ({error}). Remove them."
            )

    def _check_size(self, file: ImageFile, pixels: np.ndarray) -> None:
        if self.image_size is None:
            if pixels.shape[1] != pixels.shape[2] or pixels.shape[1] != (self.expected or pixels.shape[1]):
                self.refuse_size(file, pixels.shape)
            self.expected = pixels.shape[1]

    def refuse_size(self, file: ImageFile, shape: tuple[int, ...]) -> None:
        """Raises DataError: ``file`` does not have the expected size; ``shape`` ends in (H, W)."""
        height, width = shape[-2:]
        if self.expected is None:
            side = min(width, height)
            raise DataError(
                f"images must be square: {self._path(file)} is {width}x{height}. Set data.image_size={side}, or keep "
                f"the shape: data.image_size=[{height},{width}]."
            )
        side = self.expected
        raise DataError(
            f"images differ in size: {self._path(file)} is {width}x{height}, expected {side}x{side}. "
            f"Set data.image_size={side}."
        )
