"""Access to data sets and models at the Hugging Face Hub, or in folders of its formats."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock

from genlab.data.array_cache import digest
from genlab.errors import ConfigError, DataError, GenlabError, ResourceError
from genlab.files.paths import read_path

if TYPE_CHECKING:
    from datasets import IterableDataset

_TIMEOUT = 5.0  # seconds in which the Hub has to answer; its own library would try for half a minute
_OF_A_MODEL = ["*.safetensors", "*.json", "*.txt", "*.model"]  # weights, config, tokenizer; neither code nor pickles
_log = logging.getLogger(__name__)


def require_datasets(data: str, extra: str) -> None:
    """Raises ConfigError, naming the extra of genlab, if the package is not installed. ``data``: what needs it."""
    try:
        import datasets  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"data={data} needs a package: pip install 'genlab[{extra}]'") from error


def version(name: str, revision: str | None, memory: Path) -> str:
    """The current version of a data set: the Hub's commit, or a hash of the names, sizes and times of a folder's files.

    The commit that was seen last is saved in the folder ``memory``, and used with a warning where the Hub cannot be
    reached.

    Raises:
        DataError: there is no such data set, or the Hub cannot be reached and never was.
    """
    folder = read_path(name)
    if folder.is_dir():
        return _version_of_folder(folder)
    note = memory / f"hub-{digest(name, revision)}.json"
    try:
        commit = _ask_the_hub(name, revision)
    except _Unreachable as error:
        commit = recall(note)
        if commit is None:
            raise DataError(
                f"the data set {name} is not here and the Hugging Face Hub cannot be reached ({error}). "
                "Set data.name to a folder that holds it."
            ) from error
        _log.warning("the Hugging Face Hub cannot be reached (%s); using %s as of commit %s.", error, name, commit[:12])
        return str(commit)
    remember(note, commit)
    return str(commit)


def model_folder(name: str, revision: str | None) -> Path:
    """The folder in the Hub's own cache with a model's weights, config and tokenizer, which are downloaded if they
    are missing.

    Raises ResourceError, with what to do: there is no such model, or it is not here and the Hub cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    wanted: dict[str, Any] = {"revision": revision, "allow_patterns": _OF_A_MODEL, "ignore_patterns": ["*/*"]}
    try:
        return Path(snapshot_download(name, local_files_only=True, **wanted))
    except HFValidationError as error:
        raise ResourceError(f"{name} is neither a folder nor the name of a model, which is like owner/name.") from error
    except LocalEntryNotFoundError:
        pass
    try:
        wanted["revision"] = _ask_the_hub(name, revision, "model")
        return Path(snapshot_download(name, etag_timeout=_TIMEOUT, **wanted))
    except _Unreachable as error:
        raise ResourceError(
            f"the model {name} is not here and the Hugging Face Hub cannot be reached ({error}). "
            "Give a folder that holds it, as save_pretrained of transformers makes one."
        ) from error
    except GenlabError as error:
        raise ResourceError(str(error)) from error
    except Exception as error:  # of the network, or the disk
        cause = " ".join(str(error).split()) or type(error).__name__
        raise ResourceError(f"the download of the model {name} was interrupted ({cause}). Start it again.") from error


def remember(note: Path, value: Any) -> None:
    """Write a plain value; errors are ignored, since the cache beside it reports them."""
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(note.with_suffix(".lock")):
            partial = note.with_suffix(".part")  # one name, under the lock: remains of a killed process are overwritten
            partial.write_text(json.dumps(value))
            os.replace(partial, note)
    except OSError:
        _log.debug("cannot write %s", note)


def recall(note: Path) -> Any:
    """The value that was written; None if there is none that can be read."""
    try:
        return json.loads(note.read_text())
    except (OSError, ValueError):
        return None


class _Unreachable(Exception):
    """The Hub gave no answer; the text says why."""


def _ask_the_hub(name: str, revision: str | None, kind: Literal["data set", "model"] = "data set") -> str:
    """The commit of a revision. Raises DataError: there is no such thing, or it is not for this user."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        ask: Any = HfApi().dataset_info if kind == "data set" else HfApi().model_info
        return str(ask(name, revision=revision, timeout=_TIMEOUT).sha)
    except HFValidationError as error:
        raise DataError(f"{name} is neither a folder nor the name of a {kind}, which is like owner/name.") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status not in (401, 403, 404):
            raise _Unreachable(f"it answers {status}") from error
        what = name if revision is None else f"{name} at revision {revision}"
        raise DataError(
            f"the Hugging Face Hub has no {kind} {what} that you may read. If it is private or gated: hf auth login"
        ) from error
    except OfflineModeIsEnabled as error:
        raise _Unreachable("HF_HUB_OFFLINE is set") from error
    except Exception as error:  # of the network, in the classes of whichever HTTP library is below
        raise _Unreachable("no network") from error


def _version_of_folder(folder: Path) -> str:
    files = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        status = path.stat()
        files.append((path.relative_to(folder).as_posix(), status.st_size, status.st_mtime_ns))
    return digest(*files)


def open_stream(name: str, config: str | None, split: str, version: str) -> "IterableDataset":
    """The rows of a split as a stream, not stored. ``version``: see :func:`version`.

    Raises:
        DataError: there is no such config or split.
    """
    from datasets import load_dataset

    folder = read_path(name)
    source, revision = (str(folder), None) if folder.is_dir() else (name, version)
    try:
        return load_dataset(source, config, split=split, revision=revision, streaming=True)
    except Exception as error:  # of many kinds, with texts made for users
        raise DataError(f"cannot load the data set {name}: {' '.join(str(error).split())}") from error


def read(stream: "IterableDataset", name: str, split: str, start: int = 0) -> Iterator[dict[str, Any]]:
    """The rows from number ``start`` on. Raises DataError if the source fails midway, or is empty."""
    count = start
    try:
        for row in stream.skip(start) if start else stream:
            yield row
            count += 1
    except Exception as error:  # of the network, a file format, ...
        cause = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"the data set {name} cannot be read beyond row {count} of {split} ({cause}).") from error
    if count == 0:
        raise DataError(f"the split {split} of the data set {name} is empty.")
