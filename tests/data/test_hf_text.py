"""Text data sets in the formats of Hugging Face: cut into shards, stopped and continued, and what is refused."""

import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genlab.data import hub
from genlab.data.held_out import is_held_out
from genlab.data.hf_text import HFText
from genlab.data.tokenizer.bpe import BPE
from genlab.data.tokenizer.bytes import Bytes
from genlab.data.tokenizer.characters import Characters
from genlab.errors import ConfigError, DataError

FORK = multiprocessing.get_context("fork")
COUNT = 43
TEXTS = ["" if i == 5 else f"row {i} of many\r\n" * (i % 4 + 1) for i in range(COUNT)]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def datasets():  # type: ignore[no-untyped-def]
    module = pytest.importorskip("datasets", reason="needs the extra text: pip install 'genlab[text]'")
    module.disable_progress_bars()
    return module


@pytest.fixture(params=["parquet", "jsonl"])
def folder(datasets, tmp_path: Path, request: pytest.FixtureRequest) -> str:  # type: ignore[no-untyped-def]
    """train: TEXTS; test: three of them."""
    root = tmp_path / "set"
    root.mkdir()
    for split, texts in (("train", TEXTS), ("test", TEXTS[:3])):
        rows = [{"text": text, "number": i} for i, text in enumerate(texts)]
        if request.param == "parquet":
            datasets.Dataset.from_list(rows).to_parquet(root / f"{split}-0.parquet")
        else:
            (root / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(root)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the rows that are taken from streams from now on."""
    rows: list[int] = []
    original = hub.read

    def noted(stream: Any, name: str, split: str, start: int = 0) -> Any:
        for number, row in enumerate(original(stream, name, split, start), start):
            rows.append(number)
            yield row

    monkeypatch.setattr(hub, "read", noted)
    return rows


def joined(texts: list[str]) -> list[int]:
    return [token for text in texts if text for token in [*text.encode(), 256]]


def held_out() -> np.ndarray:
    return is_held_out(np.arange(COUNT), 0.3)


def parts(name: str, **options: Any) -> list[list[int]]:
    data = HFText(Bytes(), name, val_fraction=0.3, context=8, **options)
    return [data.tokens(split).tolist() for split in ("train", "val")]


EXPECTED = [[TEXTS[i] for i in range(COUNT) if held_out()[i] == is_val] for is_val in (False, True)]


@pytest.mark.parametrize("shard_rows", [1, 7, 43, 1000])
def test_rows_are_cut_into_two_parts_and_read_once(folder: str, read: list[int], shard_rows: int) -> None:
    assert all(EXPECTED)
    assert parts(folder, shard_rows=shard_rows) == [joined(part) for part in EXPECTED]
    assert read == list(range(COUNT))
    assert parts(folder, shard_rows=shard_rows) == [joined(part) for part in EXPECTED]
    assert len(read) == COUNT


def test_a_split_of_its_own(folder: str) -> None:
    assert parts(folder, val_split="test") == [joined(TEXTS), joined(TEXTS[:3])]


def test_a_change_of_the_folder_is_seen(folder: str) -> None:
    hashes = {HFText(Bytes(), folder, **options).text_hash(split)  # type: ignore[arg-type]
              for options in ({}, {"val_fraction": 0.5}, {"val_split": "test"}, {"text_column": "x"})
              for split in ("train", "val")}  # fmt: skip
    assert len(hashes) == 8
    (Path(folder) / "more.txt").touch()
    assert HFText(Bytes(), folder).text_hash("train") not in hashes


def test_a_tokenizer_learns_from_the_first_documents(folder: str) -> None:
    texts = [text for text, is_val in zip(TEXTS, held_out(), strict=True) if not is_val]
    for count in (3, 20, None):
        data = HFText(BPE(300), folder, val_fraction=0.3, train_documents=count, context=8)
        expected = BPE(300)
        expected.train(texts[:count])
        assert data.tokenizer.fingerprint() == expected.fingerprint()
        assert data.tokenizer.decode(data.tokens("train")) == "".join(texts)


def _killed(name: str, row: int) -> None:
    class Deadly(HFText):
        count = 0

        def encode(self, document: str) -> np.ndarray:
            if self.count == row:
                os.kill(os.getpid(), signal.SIGKILL)
            self.count += 1
            return super().encode(document)

    Deadly(Bytes(), name, val_fraction=0.3, context=8, shard_rows=10).tokens("val")


@pytest.mark.parametrize("row", [3, 10, 25, 42])
def test_killed_in_the_middle_it_goes_on_with_the_first_missing_shard(folder: str, read: list[int], row: int) -> None:
    process = FORK.Process(target=_killed, args=(folder, row))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert parts(folder, shard_rows=10) == [joined(part) for part in EXPECTED]
    assert read == list(range(row // 10 * 10, COUNT))


def test_shards_that_are_damaged_are_made_again(folder: str, read: list[int], tmp_path: Path) -> None:
    parts(folder, shard_rows=10)
    for path in (tmp_path / "cache").glob("tokens-*"):
        path.unlink()
    for row in (10, 30):
        (shard,) = (tmp_path / "cache").glob(f"shard-*-0000000{row}.npy")
        shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    read.clear()
    assert parts(folder, shard_rows=10) == [joined(part) for part in EXPECTED]
    assert read == [*range(10, 20), *range(30, 40)]


def refusal(kind: type[Exception], name: str, **options: Any) -> str:
    with pytest.raises(kind) as refused:
        _ = HFText(Bytes(), name, **options).spec
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_what_is_not_there_is_refused(folder: str, tmp_path: Path) -> None:
    assert refusal(DataError, folder, text_column="body") == (
        f"the data set {folder} has no column body (it has: text, number). Set data.text_column."
    )
    assert refusal(DataError, folder, text_column="number") == f"row 0 of {folder} (train) has no text in number."
    assert refusal(DataError, folder, split="dev").startswith(f"cannot load the data set {folder}: Bad split: dev")
    assert refusal(DataError, "owner/name") == (
        "the data set owner/name is not here and the Hugging Face Hub cannot be reached (HF_HUB_OFFLINE is set). "
        "Set data.name to a folder that holds it."
    )
    assert refusal(DataError, folder, val_split="test", context=10_000) == (
        f"the training text of {folder} has {len(joined(TEXTS))} tokens; at least 10001 are needed for "
        "data.context=10000."
    )
    with pytest.raises(DataError, match="which is at character 4 "):
        HFText(Characters(), folder, train_documents=1, val_fraction=0.3).tokens("train")


@pytest.mark.parametrize("options", [{"val_fraction": 1.0}, {"train_documents": 0}, {"shard_rows": 0}, {"context": 0}])
def test_values_out_of_range_are_refused(options: dict[str, Any]) -> None:
    assert refusal(ConfigError, "x", **options).startswith(f"data.{next(iter(options))} must ")


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert refusal(ConfigError, "owner/set") == "data=hf_text needs a package: pip install 'genlab[text]'"
