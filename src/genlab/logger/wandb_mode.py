"""Chooses whether Weights & Biases runs online or offline."""

import http.client
import netrc
import os
import urllib.error
import urllib.request
import warnings
from pathlib import Path
from urllib.parse import urlsplit

_LOGINS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")


def choose_wandb_mode(mode: str | None = None) -> None:
    """Offline without a login, or if the server does not answer; a mode set by the user has precedence, the option
    ``mode`` before the environment."""
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_INIT_TIMEOUT", "20")  # seconds
    if mode is not None:
        os.environ["WANDB_MODE"] = mode
    if os.environ.get("WANDB_MODE"):
        return
    url = os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"
    if not (any(os.environ.get(name) for name in _LOGINS) or _netrc_names(urlsplit(url).hostname or "")):
        os.environ["WANDB_MODE"] = "offline"
        return
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError:
        pass  # it answers
    except (OSError, ValueError, http.client.HTTPException) as error:
        os.environ["WANDB_MODE"] = "offline"
        warnings.warn(f"W&B is unreachable at {url} ({error}); its data are kept on this machine.", stacklevel=2)


def _netrc_names(host: str) -> bool:
    """Whether the user's netrc holds a login for ``host``. False if it cannot be read, which W&B
    cannot either, or if the user has no home."""
    try:
        file = os.environ.get("NETRC") or Path.home() / ".netrc"
        return netrc.netrc(str(file)).authenticators(host) is not None
    except (OSError, RuntimeError, ValueError, netrc.NetrcParseError):
        return False
