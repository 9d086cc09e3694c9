"""Windows of tokens: every epoch covers the text once, cut elsewhere; prepared once, whatever happens meanwhile."""

import multiprocessing
import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from genlab.data.base import DataSpec, Split
from genlab.data.sampler import ResumableBatchSampler
from genlab.data.text import TextDataModule, Windows
from genlab.data.tokenizer.base import Tokenizer
from genlab.data.tokenizer.bpe import BPE
from genlab.data.tokenizer.bytes import Bytes
from genlab.data.tokenizer.characters import Characters
from genlab.errors import ConfigError, DataError, StorageError

FORK = multiprocessing.get_context("fork")
TEXTS: dict[Split, list[str]] = {
    "train": [f"{i}: the quick brown fox jumps over the lazy dog\n" for i in range(30)],
    "val": ["the dog jumps\n", "0 9 fox\n"],
}


class Texts(TextDataModule):
    """Given texts; how often they are tokenized is counted."""

    def __init__(self, tokenizer: Tokenizer, texts: dict[Split, list[str]] = TEXTS, **options: Any):
        super().__init__(tokenizer, **{"context": 8, **options})
        self.texts, self.tokenized = texts, 0

    def documents(self, split: Split) -> Iterable[str]:
        return iter(self.texts[split])

    def encode(self, document: str) -> np.ndarray:
        self.tokenized += 1
        return super().encode(document)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "cache"))


# --- windows ----------------------------------------------------------------------------------------------------------


def starts(windows: Windows, epoch: int) -> list[int]:
    """Token i of the text is the number i."""
    batch = windows[[(epoch, index) for index in range(len(windows))]]
    expected = batch["tokens"][:, :1] + torch.arange(windows.context + 1)
    assert torch.equal(batch["tokens"], expected)
    assert batch["tokens"].dtype == torch.int64
    assert batch["index"].tolist() == list(range(len(windows)))
    return batch["tokens"][:, 0].tolist()


@pytest.mark.parametrize("context", [1, 2, 7, 64])
@pytest.mark.parametrize("extra", [1, 2, 3, 50, 64, 65, 127, 128, 129, 1000])
def test_an_epoch_covers_the_text_once_without_gaps(context: int, extra: int) -> None:
    length = context + extra
    windows = Windows(np.arange(length, dtype=np.uint16), context, seed=3)
    offsets = set()
    for epoch in range(40):
        found = starts(windows, epoch)
        offset = windows.offset(epoch)
        assert found == [offset + i * context for i in range(len(windows))]
        assert 0 <= offset < context or context == 1
        assert length - 2 * context <= offset + len(windows) * context <= length - 1  # what is left out at the end
        offsets.add(offset)
    possible = min(context, length - len(windows) * context)
    assert len(offsets) > min(possible, 40) // 2
    held_out = Windows(np.arange(length, dtype=np.uint16), context, seed=None)
    assert starts(held_out, 0) == starts(held_out, 7) == list(range(0, length - context, context))


def test_offsets_are_a_function_of_seed_and_epoch_and_spread_evenly() -> None:
    tokens = np.arange(5000, dtype=np.uint16)
    offsets = [Windows(tokens, 64, seed).offset(epoch) for seed in range(20) for epoch in range(200)]
    counts = np.bincount(offsets, minlength=64)
    assert ((counts - 62.5) ** 2 / 62.5).sum() < 120  # chi-squared of 63 degrees of freedom: 1e-5
    assert (
        [Windows(tokens, 64, 0).offset(epoch) for epoch in range(5)] == offsets[:5] == [34, 23, 30, 32, 2]
    )  # pinned: a change breaks every resume


def test_a_limit_keeps_the_first_windows() -> None:
    windows = Windows(np.arange(1000, dtype=np.uint16), 8, seed=1, limit=3)
    assert len(windows) == 3
    assert starts(windows, 4) == [windows.offset(4) + i * 8 for i in range(3)]
    assert len(Windows(np.arange(100, dtype=np.uint16), 8, seed=1, limit=1000)) == 11


@pytest.mark.parametrize("world", [2, 4])
def test_global_batches_do_not_depend_on_the_number_of_ranks(world: int) -> None:
    windows = Windows(np.arange(1000, dtype=np.uint16), 8, seed=1)

    def batches(rank: int, ranks: int, start: int = 0) -> list[torch.Tensor]:
        return [windows[keys]["tokens"] for keys in ResumableBatchSampler(len(windows), 8, 1, rank, ranks, 2, start)]

    shares = [batches(rank, world) for rank in range(world)]
    whole = batches(0, 1)
    for batch, *parts in zip(whole, *shares, strict=True):
        assert torch.equal(torch.stack(parts, dim=1).flatten(0, 1), batch)
    assert all(torch.equal(a, b) for a, b in zip(batches(0, 1, start=4), whole[4:], strict=True))
    seen = torch.cat(whole)[:, :-1].flatten()
    assert len(seen) == len(seen.unique()) == 15 * 8 * 8


def test_workers_do_not_change_the_data() -> None:
    windows = Texts(Bytes(), seed=5).dataset("train")

    def batches(workers: int) -> list[dict[str, torch.Tensor]]:
        sampler = ResumableBatchSampler(len(windows), 8, 5, 0, 1)
        return list(DataLoader(windows, sampler=sampler, batch_size=None, num_workers=workers))

    for alone, helped in zip(batches(0), batches(2), strict=True):
        assert alone.keys() == helped.keys() == {"tokens", "index"}
        assert all(torch.equal(alone[name], helped[name]) for name in alone)


# --- the datamodule ---------------------------------------------------------------------------------------------------


def test_documents_are_joined_by_the_end_token() -> None:
    data = Texts(Bytes())
    expected = b"".join(text.encode() + b"\xff" for text in TEXTS["val"])
    tokens = data.tokens("val")
    assert [255 if token == 256 else int(token) for token in tokens] == list(expected)
    assert tokens.dtype == np.uint16
    base: np.ndarray | None = tokens
    while base is not None and not isinstance(base, np.memmap):
        base = base.base  # type: ignore[assignment]
    assert base is not None


def test_one_document_is_not_ended_and_an_empty_one_is_none() -> None:
    texts: dict[Split, list[str]] = {"train": ["abc" * 9], "val": ["", "cab" * 5, ""]}
    assert "".join("abc"[t] for t in Texts(Characters(), texts).tokens("val")) == "cab" * 5
    assert Texts(Bytes(), texts).tokens("val").tolist() == [*b"cab" * 5, 256]


def test_the_spec() -> None:
    spec = Texts(Bytes(), context=12).spec
    assert spec == DataSpec("text", (12,), vocab_size=257, start_token=256)
    config = spec.to_config()
    assert (config["modality"], config["shape"], config["vocab_size"], config["start_token"]) == (
        "text",
        [12],
        257,
        256,
    )
    characters = sorted(set("".join(TEXTS["train"])))
    assert Texts(Characters()).spec.vocab_size == len(characters) + 1
    assert Texts(BPE(270)).spec.vocab_size == 270


def test_batches_of_validation_are_the_text_in_order() -> None:
    data = Texts(Bytes(), batch_size=2)
    found = torch.cat([batch["tokens"][:, :-1] for batch in data.val_dataloader()]).flatten()
    assert found.tolist() == data.tokens("val")[: len(found)].tolist()
    assert len(found) == (len(data.tokens("val")) - 1) // 8 * 8


def test_a_batch_can_be_written_to_and_the_text_stays() -> None:
    data = Texts(Bytes())
    before = data.tokens("train").copy()
    data.dataset("train")[[(0, 0), (0, 1)]]["tokens"].zero_()
    assert np.array_equal(data.tokens("train"), before)


def test_the_vocabulary_is_that_of_the_training_text() -> None:
    with pytest.raises(
        DataError,
        match=r"has no 'z' \(U\+007A\), which is at character 2 \(line 2\) of a document of the held-out text: "
        r"the training text has none\. Train with data/tokenizer=bytes, or data\.tokenizer\.unknown=true\.$",
    ):
        Texts(Characters(), {"train": ["ab\n" * 20], "val": ["a\nz" * 20]}).tokens("val")


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("length", [0, 1, 8])
def test_too_little_text_is_refused(split: Split, length: int) -> None:
    texts: dict[Split, list[str]] = {"train": ["ab" * 9], "val": ["ba" * 9]}
    texts[split] = [("ab" * 9)[:length]]
    with pytest.raises(DataError) as refused:
        _ = Texts(Characters(), texts).spec
    name = {"train": "the training text", "val": "the held-out text"}[split]
    assert str(refused.value) == f"{name} has {length} tokens; at least 9 are needed for data.context=8."
    texts[split] = ["ab" * 4 + "a"]
    data = Texts(Characters(), texts)
    assert data.spec.shape == (8,)
    assert len(data.dataset(split)) == 1


def test_batches_that_cannot_be_made_are_refused() -> None:
    data = Texts(Bytes(), batch_size=10_000)
    count = len(data.dataset("train"))
    with pytest.raises(ConfigError, match=f"is too large: the training set has {count} items"):
        data.check(1)
    with pytest.raises(ConfigError, match=r"data.context must be a whole number >= 1, got 0\."):
        Texts(Bytes(), context=0)


def test_many_tokens_need_more_bits() -> None:
    class Wide(Bytes):
        vocab_size = (1 << 16) + 1

    assert Texts(Wide()).tokens("val").dtype == np.uint32


# --- prepared once ----------------------------------------------------------------------------------------------------


def tokenized(tokenizer: Tokenizer, texts: dict[Split, list[str]] = TEXTS, **options: Any) -> int:
    data = Texts(tokenizer, texts, **options)
    _ = data.spec
    return data.tokenized


def test_text_is_tokenized_once_until_something_changes() -> None:
    count = sum(map(len, TEXTS.values()))
    assert tokenized(BPE(270)) == count
    assert tokenized(BPE(270)) == 0
    assert tokenized(BPE(270), context=5, seed=4, limit=2) == 0
    assert tokenized(BPE(271)) == count
    assert tokenized(Bytes()) == count
    changed: dict[Split, list[str]] = {"train": TEXTS["train"], "val": ["the dog jumps\n0 9 ", "fox\n"]}
    assert tokenized(Bytes(), changed) == 2  # where documents end matters
    assert Texts(Bytes()).text_hash("val") != Texts(Bytes(), changed).text_hash("val")


def test_what_was_learned_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    learned = Texts(BPE(270)).tokenizer.fingerprint()
    monkeypatch.setattr(BPE, "train", None)
    assert Texts(BPE(270)).tokenizer.fingerprint() == learned


def _killed(at: int) -> None:
    class Deadly(Texts):
        def encode(self, document: str) -> np.ndarray:
            if self.tokenized == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().encode(document)

    _ = Deadly(BPE(270)).spec


@pytest.mark.parametrize("at", [0, 17, 31])
def test_killed_while_tokenizing(at: int, tmp_path: Path) -> None:
    process = FORK.Process(target=_killed, args=(at,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    data = Texts(BPE(270))
    tokens = [data.tokens(split).tolist() for split in ("train", "val")]
    elsewhere = Texts(BPE(270), cache_dir=str(tmp_path / "elsewhere"))
    assert tokens == [elsewhere.tokens(split).tolist() for split in ("train", "val")]
    assert data.tokenizer.decode(data.tokens("val")) == "".join(TEXTS["val"])
    assert tokenized(BPE(270)) == 0


def _prepared(results: Any) -> None:
    results.put(tokenized(BPE(270)))


def test_two_at_once_tokenize_once() -> None:
    results = FORK.SimpleQueue()
    processes = [FORK.Process(target=_prepared, args=(results,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert results.get() + results.get() == sum(map(len, TEXTS.values()))


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot keep prepared data in .*file .*Make room, or set cache_dir to"):
        Texts(Bytes(), cache_dir=str(tmp_path / "file")).tokens("val")
