"""Downloads published archives once, atomically, and verifies their checksums."""

import hashlib
import http.client
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from genlab.errors import DataError
from genlab.files.regular_file import open_new
from genlab.progress import progress

_TIMEOUT = 15.0  # seconds without a byte after which a server counts as unreachable
_CHUNK = 1 << 18  # bytes


@dataclass(frozen=True)
class Archive:
    """A file to download: its name, its checksum as published, and the addresses to try in order."""

    name: str
    checksum: str
    urls: tuple[str, ...]
    algorithm: Literal["md5", "sha256"] = "md5"  # of the checksum


def fetch(title: str, archives: Sequence[Archive], folder: Path, shown: str, download: bool) -> None:
    """Make sure that ``folder`` holds all ``archives``. The caller holds the lock.

    Args:
        title: of the data set, for messages
        archives: a file that is there with the right checksum is left alone
        folder: made if need be
        shown: the folder as the user wrote it, for messages
        download: whether the network may be used

    Raises:
        DataError: some are missing and cannot be downloaded; the text names them all, with their checksums.
        OSError: the folder cannot be written.
    """
    missing = [archive for archive in archives if not is_there(archive, folder / archive.name)]
    for position, archive in enumerate(missing):
        failure = _download(archive, folder) if download else "data.download=false"
        if failure:
            files = [f"{item.name} ({item.algorithm} {item.checksum})" for item in missing[position:]]
            listed = " and ".join(part for part in (", ".join(files[:-1]), files[-1]) if part)
            raise DataError(f"{title} is not in {shown} and cannot be downloaded ({failure}). Put {listed} there.")


def _download(archive: Archive, folder: Path) -> str:
    """Try each address; "" once the file is in place, else why the last one failed."""
    failure, partial = "", folder / f"{archive.name}.part"
    for url in archive.urls:
        try:
            request = urllib.request.Request(url, headers={"User-Agent": "genlab"})
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
                _save(response, partial, f"downloading {archive.name}")
        except urllib.error.HTTPError as error:
            failure = f"{urlsplit(url).hostname} answers {error.code}"
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError):
            failure = "no network"
        else:
            if is_there(archive, partial):
                os.replace(partial, folder / archive.name)
                return ""
            failure = f"the file from {urlsplit(url).hostname} has another checksum"
        partial.unlink(missing_ok=True)
    return failure


def _save(response: http.client.HTTPResponse, path: Path, title: str) -> None:
    with open_new(path) as file, progress(title, response.length) as advance:
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            advance(len(chunk))
        file.flush()
        os.fsync(file.fileno())


def is_there(archive: Archive, path: Path) -> bool:
    """Whether ``path`` holds the archive, by its checksum."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.new(archive.algorithm, usedforsecurity=False))
    return found.hexdigest() == archive.checksum
