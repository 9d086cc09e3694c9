"""Which version of a data set there is: what the Hub answers, where it does not, and a folder's files."""

import os
import socket
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from genlab.data import hub
from genlab.errors import DataError

huggingface_hub = pytest.importorskip("huggingface_hub", reason="needs the extra hf: pip install 'genlab[hf]'")


def refusal(name: str, memory: Path, revision: str | None = None) -> str:
    with pytest.raises(DataError) as caught:
        hub.version(name, revision, memory)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def unreached(reason: str) -> str:
    return (
        f"the data set owner/set is not here and the Hugging Face Hub cannot be reached ({reason}). "
        "Set data.name to a folder that holds it."
    )


def test_offline_is_one_line_at_once(tmp_path: Path) -> None:
    start = time.monotonic()
    assert refusal("owner/set", tmp_path) == unreached("HF_HUB_OFFLINE is set")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_text("{}")
    assert hub.version(str(tmp_path / "set"), None, tmp_path)
    assert refusal("/no/such/folder", tmp_path) == (
        "/no/such/folder is neither a folder nor the name of a data set, which is like owner/name."
    )
    assert time.monotonic() - start < 5


def test_a_hub_that_never_answers_does_not_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "_TIMEOUT", 0.3)
    real = huggingface_hub.HfApi
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: real(endpoint=endpoint))
        start = time.monotonic()
        assert refusal("owner/set", tmp_path) == unreached("no network")
        assert 0.2 < time.monotonic() - start < 5


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the Hub answers: a commit, or an error to raise."""
    state = SimpleNamespace(value="a" * 40)

    def dataset_info(self: object, name: str, revision: str | None, timeout: float) -> SimpleNamespace:
        if isinstance(state.value, Exception):
            raise state.value
        return SimpleNamespace(sha=state.value)

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    return state


@pytest.mark.parametrize("status", [401, 403, 404, 503])
def test_refusals_of_the_hub(answer: SimpleNamespace, tmp_path: Path, status: int) -> None:
    answer.value = huggingface_hub.errors.HfHubHTTPError.__new__(huggingface_hub.errors.HfHubHTTPError)
    answer.value.response = SimpleNamespace(status_code=status)
    if status == 503:
        assert refusal("owner/set", tmp_path) == unreached("it answers 503")
        return
    rest = "that you may read. If it is private or gated: hf auth login"
    assert refusal("owner/set", tmp_path) == f"the Hugging Face Hub has no data set owner/set {rest}"
    assert refusal("owner/set", tmp_path, "v2") == (
        f"the Hugging Face Hub has no data set owner/set at revision v2 {rest}"
    )


def test_the_last_commit_is_remembered_for_each_name_and_revision(answer: SimpleNamespace, tmp_path: Path) -> None:
    assert hub.version("owner/set", None, tmp_path) == "a" * 40
    answer.value = "b" * 40
    assert hub.version("owner/set", "v2", tmp_path) == "b" * 40
    answer.value = OSError("unplugged")
    assert hub.version("owner/set", None, tmp_path) == "a" * 40
    assert hub.version("owner/set", "v2", tmp_path) == "b" * 40
    for note in tmp_path.iterdir():
        note.write_text("{")
    assert refusal("owner/set", tmp_path) == unreached("no network")


def test_a_memory_that_cannot_be_written_is_no_obstacle(answer: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert hub.version("owner/set", None, tmp_path / "file") == "a" * 40


def test_the_version_of_a_folder_follows_its_files(tmp_path: Path) -> None:
    folder, memory = tmp_path / "set", tmp_path / "memory"
    (folder / "deep").mkdir(parents=True)
    path = folder / "deep/a.parquet"

    def version() -> str:
        return hub.version(str(folder), None, memory)

    path.write_bytes(b"1")
    seen = [version()]
    assert version() == seen[0]
    os.utime(path, ns=(0, 1))
    seen.append(version())
    path.write_bytes(b"12")
    os.utime(path, ns=(0, 1))
    seen.append(version())
    (folder / "b.parquet").write_bytes(b"")
    seen.append(version())
    assert len(set(seen)) == len(seen)
    assert not memory.exists()
