"""Characters that the training text has not: one token, counted, and paid for in full."""

import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from genlab.data.text_file import TextFile
from genlab.data.tokenizer.base import unknown_of
from genlab.data.tokenizer.bytes import Bytes
from genlab.data.tokenizer.characters import Characters
from genlab.errors import DataError
from genlab.metrics.perplexity import Perplexity

ALL = 0x110000 - 0x800


def trained(text: str, unknown: bool = True) -> Characters:
    tokenizer = Characters(unknown)
    tokenizer.train([text])
    return tokenizer


def test_one_token_stands_for_every_other_character() -> None:
    tokenizer = trained("abc")
    assert (tokenizer.vocab_size, tokenizer.unknown, tokenizer.end) == (4, 3, None)
    assert tokenizer.encode("aéb€").tolist() == [0, 3, 1, 3]
    assert tokenizer.decode([0, 3, 2]) == "a\ufffdc"
    assert np.allclose(tokenizer.extra_bits(), [0, 0, 0, math.log2(ALL - 3)])
    again = Characters(True)
    again.load_state(tokenizer.state())
    assert (again.fingerprint(), again.vocab_size) == (tokenizer.fingerprint(), 4)


def test_without_it_all_is_as_it_was() -> None:
    tokenizer = trained("abc", unknown=False)
    assert json.loads(tokenizer.state()) == {"characters": "abc", "end": False}
    assert unknown_of(tokenizer) is None is unknown_of(Bytes())
    with pytest.raises(DataError, match=r"the training text has none"):
        tokenizer.encode("aé")
    with pytest.raises(DataError, match="not the state"):
        tokenizer.load_state(trained("abc").state())


class Uniform(torch.nn.Module):
    """Every token of the vocabulary is as likely as the next."""

    likelihood_kind = "exact"
    device = torch.device("cpu")

    def __init__(self, vocab_size: int):
        super().__init__()
        self.vocab_size = vocab_size

    def log_likelihood(self, x: torch.Tensor, condition: object = None) -> torch.Tensor:
        return torch.full((len(x),), -(x.shape[1] - 1) * math.log(self.vocab_size))


def test_figures_are_those_of_a_code_for_the_text_as_it_stands(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("abc" * 20)
    (tmp_path / "b.txt").write_text("abcé€" * 4)
    data = TextFile(
        Characters(True), str(tmp_path / "a.txt"), str(tmp_path / "b.txt"), context=4, cache_dir=str(tmp_path)
    )
    monkeypatch.setattr(Perplexity, "check", lambda *_: None)
    with caplog.at_level(logging.WARNING):
        assert data.spec.vocab_size == 4
        assert data.spec.vocab_size == 4
    (said,) = [record.message for record in caplog.records]
    assert "8 of the 20 characters" in said
    assert "2 different: 'é', '€'" in said
    metric = Perplexity()
    metric.measure(Uniform(4), data, "val", 3)  # type: ignore[arg-type]
    bits = 19 * 2 + 8 * math.log2(ALL - 3)  # all but the first, which is no unknown one
    found = metric.compute()
    assert math.isclose(float(found["perplexity"]), 2 ** (bits / 19), rel_tol=1e-6)
    assert math.isclose(float(found["bits_per_byte"]), bits / (len(("abcé€" * 4).encode()) - 1), rel_tol=1e-6)
    assert metric.settings()["unknown_tokens"] == 8
