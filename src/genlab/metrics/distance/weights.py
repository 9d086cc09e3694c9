"""Weights of networks that others trained: a file here, or one that is downloaded once."""

import pickle
import urllib.request
from pathlib import Path

import torch
from torch import Tensor

from genlab.errors import ResourceError


def weights_file(
    url: str,  # whose file name ends in the first digits of its own SHA-256
    weights: str | None,  # a file that is there; None: from the cache, or else downloaded into it
    cache: str | None,  # a folder; None: torch.hub's
    timeout: float,  # seconds that the server may take to answer
    what: str,  # whose weights, for the message
    instead: str,  # what needs no download, for the message
) -> Path:
    """Raises ResourceError, naming file and folder, if it is neither here nor to be had."""
    name = Path(url).name
    if weights is not None:
        path = Path(weights)
        if not path.is_file():
            raise ResourceError(f"the weights of {what} are not at {path}. Put {name} there.")
        return path
    path = (Path(cache) if cache else Path(torch.hub.get_dir()) / "checkpoints") / name
    if path.is_file():
        return path
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout).close()
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = name.rsplit("-", 1)[1].removesuffix(".pth")
        torch.hub.download_url_to_file(url, str(path), hash_prefix=prefix, progress=False)
    except (OSError, RuntimeError) as error:  # no network, no such page, no space; or not the right bytes
        raise ResourceError(
            f"the weights of {what} are not here and cannot be downloaded. Put {name} into {path.parent}, or {instead}."
        ) from error
    return path


def plain_weights(path: Path) -> dict[str, Tensor]:
    """Raises ResourceError if the file holds anything but weights."""
    try:
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ResourceError(
            f"{path} does not hold plain weights ({type(error).__name__}); genlab loads weights only. Get it anew."
        ) from error
    return state
