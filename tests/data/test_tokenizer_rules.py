"""Rules of a stranger's tokenizer: what takes forever, or breaks the package, is one line."""

import json
from typing import Any

import pytest

pytest.importorskip("tokenizers")

from genlab.data.tokenizer.bpe import BPE
from genlab.data.tokenizer.rules import are_plain
from genlab.errors import DataError


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    tokenizer = BPE(300)
    tokenizer.train(["hello world, hello all"])
    return json.loads(tokenizer.state())


def loaded(plain: dict[str, Any], **changes: Any) -> BPE:
    tokenizer = BPE(300)
    tokenizer.load_state(json.dumps({**plain, **changes}))
    return tokenizer


def split(pattern: str) -> dict[str, Any]:
    bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    by_pattern = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [by_pattern, bytes_]}


def replace(content: str, pattern: str = "a") -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": pattern}, "content": content}


HOSTILE = {
    "nested repetition": {"pre_tokenizer": split("(a+)+$")},
    "alternatives that overlap": {"pre_tokenizer": split("(x|x|y)*$")},
    "a letter becomes a page": {"normalizer": replace("b" * 1_000_000)},
    "growth on growth": {"normalizer": {"type": "Sequence", "normalizers": [replace("a" * 10)] * 9}},
    "a panic at length 0": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
    "a panic in a table": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
    "no such kind": {"normalizer": {"type": "Nothing"}},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_rules_are_refused_in_one_line(kind: str, plain: dict[str, Any], capfd) -> None:
    with pytest.raises(DataError) as caught:
        loaded(plain, **HOSTILE[kind])
    assert len(str(caught.value).splitlines()) == 1
    assert capfd.readouterr() == ("", "")


def test_a_panic_on_a_text_that_was_not_tried_is_one_line(plain: dict[str, Any], capfd) -> None:
    tokenizer = loaded(plain, pre_tokenizer=split(r"(([\x{3b1}-\x{3b9}])+)+$"))
    assert tokenizer.decode(tokenizer.encode("hello world")) == "hello world"
    with pytest.raises(DataError, match="fail on this text"):
        tokenizer.encode("\u03b2" * 40 + "!")
    assert capfd.readouterr() == ("", "")


def test_rules_of_known_models_are_taken(plain: dict[str, Any]) -> None:
    llama = r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    tokenizer = loaded(plain, pre_tokenizer=split(llama), normalizer={"type": "NFC"})
    assert tokenizer.decode(tokenizer.encode("hello  world 2024\n")) == "hello  world 2024\n"


def test_our_own_rules_need_no_trial(plain: dict[str, Any]) -> None:
    assert are_plain(plain)
    assert not are_plain({**plain, "normalizer": {"type": "NFC"}})
    assert not are_plain({**plain, "pre_tokenizer": None})
