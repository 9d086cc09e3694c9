"""Finds or downloads published weights, and reads only tensors from them."""

import hashlib
import pickle
import urllib.request
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from genlab.errors import ResourceError
from genlab.files.paths import read_path

_TIMEOUT = 5.0  # seconds that a server may take to answer


@dataclass(frozen=True)
class Published:
    """A published file of weights."""

    title: str  # "the Inception weights for FID": for messages
    url: str
    name: str  # of the file, as torch.hub and torch-fidelity keep it
    sha256: str  # its first digits, or all
    instead: str = "use metrics/extractor=random (no download)"  # an alternative for the user


def named_by_hash(title: str, url: str, instead: str = Published.instead) -> Published:
    """A file whose name ends in the first digits of its own SHA-256, as torch.hub has it: ``vgg16-397923af.pth``."""
    name = Path(url).name
    return Published(title, url, name, Path(name).stem.rsplit("-", 1)[1], instead)


def weights_file(
    published: Published,
    weights: str | None,  # a file; null: from the cache, or else downloaded into it
    cache: str | None = None,  # a folder; null: torch.hub's
    timeout: float = _TIMEOUT,
) -> Path:
    """Raises ResourceError if the file is neither here nor can be downloaded."""
    if weights is not None:
        path = read_path(weights)
        if not path.is_file():
            raise ResourceError(f"{published.title} are not at {path}. Put {published.name} there.")
        return path
    path = (Path(cache) if cache else Path(torch.hub.get_dir()) / "checkpoints") / published.name
    if not path.is_file():
        _download(published, path, timeout)
    return path


def load_tensors(path: Path, published: Published) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU.

    A .safetensors file, or one of torch's that holds plain weights. A TorchScript archive holds code too, and is opened
    only if it is the published one, byte for byte.

    Raises:
        ResourceError: the file is damaged, or holds anything else.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if _is_torchscript(path):
            if not _sha256(path).startswith(published.sha256):
                raise ValueError("TorchScript")
            with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
                return dict(torch.jit.load(path, map_location="cpu").state_dict())
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, ValueError, EOFError) as error:
        raise ResourceError(
            f"{path} does not hold plain weights ({type(error).__name__}); genlab loads weights only. "
            f"Get {published.name} anew."
        ) from error


def misfit(path: Path, published: Published, error: Exception) -> ResourceError:
    """The error for tensors that are not those of the network. ``error`` may have many lines; the first are shown."""
    said = " ".join(str(error).split())[:160]
    return ResourceError(f"{path} holds other weights than {published.name} ({said} ...).")


def _download(published: Published, path: Path, timeout: float) -> None:
    try:
        request = urllib.request.Request(published.url, method="HEAD")
        urllib.request.urlopen(request, timeout=timeout).close()  # the download itself has no time limit
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(published.url, str(path), hash_prefix=published.sha256, progress=False)
    except (OSError, RuntimeError) as error:  # no network, no such page, no space; or not the right bytes
        raise ResourceError(
            f"{published.title} are not here and cannot be downloaded. "
            f"Put {published.name} into {path.parent}, or {published.instead}."
        ) from error


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
