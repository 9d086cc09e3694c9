"""Whether Weights & Biases is online."""

import http.client
import os
import urllib.error
import urllib.request
import warnings
from pathlib import Path


def choose_wandb_mode() -> None:
    """Offline where nobody has logged in, or nobody answers; a mode that the user has set stands."""
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_INIT_TIMEOUT", "20")  # seconds
    if "WANDB_MODE" in os.environ:
        return
    if not (os.environ.get("WANDB_API_KEY") or _netrc_names_wandb()):
        os.environ["WANDB_MODE"] = "offline"
        return
    url = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError:
        pass  # it answers
    except (OSError, ValueError, http.client.HTTPException) as error:
        os.environ["WANDB_MODE"] = "offline"
        warnings.warn(f"W&B is unreachable at {url} ({error}); what it is sent is kept here.", stacklevel=2)


def _netrc_names_wandb() -> bool:
    file = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    return file.exists() and "wandb" in file.read_text(encoding="utf-8", errors="ignore")
