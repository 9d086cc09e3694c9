"""Tokenizers: text comes back exactly, tokens are those of a reference, and what cannot be is refused in one line."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from genlab.data.text import start_token
from genlab.data.tokenizer import byte_level
from genlab.data.tokenizer.base import StreamDecoder, Tokenizer
from genlab.data.tokenizer.bpe import BPE
from genlab.data.tokenizer.bytes import Bytes
from genlab.data.tokenizer.characters import Characters
from genlab.data.tokenizer.pretrained import Pretrained
from genlab.errors import ConfigError, DataError

RANGES = [(0, 128), (128, 0x800), (0x800, 0xD800), (0xE000, 0x10000), (0x10000, 0x11000), (0x1F300, 0x1FA00)]
PROSE = "The cat sat on the mat; the bat that sat on the cat's hat is fat.\r\nÉté à l'île 😀👩‍🚀!\n"


def random_text(seed: int, length: int = 200) -> str:
    """Of all planes of Unicode, with line ends of every kind and runs of spaces."""
    rng = np.random.default_rng(seed)
    some = ["\r\n", "\n", "\r", "  ", "\t", "\0", "é", "e\u0301", "👩‍🚀", "<|endoftext|>", "\ufeff", "the "]
    parts = [chr(rng.integers(*RANGES[i])) if i < len(RANGES) else some[rng.integers(len(some))]
             for i in rng.integers(0, len(RANGES) + 3, length)]  # fmt: skip
    return "".join(parts)


def trained(tokenizer: Tokenizer, *documents: str) -> Tokenizer:
    tokenizer.train(documents)
    return tokenizer


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "characters": Characters,
    "bytes": Bytes,
    "bpe": lambda: BPE(300),
}


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> Callable[[], Tokenizer]:
    return KINDS[request.param]


@pytest.mark.parametrize("seed", range(5))
def test_any_text_comes_back_exactly(kind: Callable[[], Tokenizer], seed: int) -> None:
    text = random_text(seed)
    tokenizer = trained(kind(), text, PROSE)
    for document in (text, PROSE, "", text[::-1]):
        tokens = tokenizer.encode(document)
        assert tokens.dtype == np.int64
        assert tokenizer.end not in tokens
        assert tokenizer.decode(tokens) == document
        assert tokenizer.byte_lengths()[tokens].sum() == len(document.encode())
        stream = StreamDecoder(tokenizer)
        pushed = [stream.push(int(token)) for token in tokens]
        assert "".join(pushed) == document
        assert stream.finish() == ""


def test_a_state_is_all_there_is(kind: Callable[[], Tokenizer]) -> None:
    first, again = trained(kind(), PROSE, random_text(1)), kind()
    again.load_state(first.state())
    assert again.encode(PROSE).tolist() == first.encode(PROSE).tolist()
    assert (again.vocab_size, again.end) == (first.vocab_size, first.end)
    assert again.fingerprint() == first.fingerprint()
    assert len(first.fingerprint()) == 16
    assert json.loads(first.state()) is not None
    assert again.byte_lengths().tolist() == first.byte_lengths().tolist()


def test_fingerprints_differ_where_tokens_do() -> None:
    learned = [Characters(), Bytes(), BPE(300), BPE(301), trained(Characters(), "ab"), trained(Characters(), "ac"),
              trained(Characters(), "ab", "a"), trained(BPE(300), PROSE), trained(BPE(300), PROSE[::-1])]  # fmt: skip
    assert len({tokenizer.fingerprint() for tokenizer in learned}) == len(learned)


NONSENSE = ["", "{", "[]", "null", '{"version":"1.0","model":{}}', '{"characters": null, "end": false}',
            '{"characters": "ba", "end": false}', '{"characters": "aa", "end": true}',
            '{"characters": ["a"], "end": true}', '{"characters": "a", "end": 1}']  # fmt: skip


@pytest.mark.parametrize("state", NONSENSE)
def test_nonsense_is_no_state(kind: Callable[[], Tokenizer], state: str) -> None:
    with pytest.raises(DataError) as refused:
        kind().load_state(state)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("token", [-1, 300, 50300])
def test_tokens_outside_of_the_vocabulary(kind: Callable[[], Tokenizer], token: int) -> None:
    tokenizer = trained(kind(), "\n".join(["ab ab"] * 9))
    with pytest.raises(DataError) as refused:
        tokenizer.decode([0, token])
    assert str(refused.value) == f"token id {token} is outside the vocabulary ({tokenizer.vocab_size})."


def test_half_a_surrogate_pair_is_no_text(kind: Callable[[], Tokenizer]) -> None:
    tokenizer = trained(kind(), PROSE)
    with pytest.raises(DataError, match=r"at character 3 \(line 2\)"):
        tokenizer.encode("a\ne\ud800")


# --- characters -------------------------------------------------------------------------------------------------------


def test_characters_are_those_of_nanogpt() -> None:
    """Its data/shakespeare_char/prepare.py: sorted(list(set(data))), numbered from 0."""
    text = "hello\nworld"
    tokenizer = trained(Characters(), text)
    numbers = {character: i for i, character in enumerate(sorted(set(text)))}
    assert tokenizer.encode(text).tolist() == [numbers[c] for c in text] == [3, 2, 4, 4, 5, 0, 7, 5, 6, 4, 1]
    assert tokenizer.vocab_size == 8
    assert tokenizer.end is None
    assert start_token(tokenizer) == 0


def test_several_documents_have_ends() -> None:
    tokenizer = trained(Characters(), "ab", "bc")
    assert (tokenizer.vocab_size, tokenizer.end) == (4, 3)
    assert tokenizer.decode([0, 3, 1]) == "ab"
    assert tokenizer.byte_lengths().tolist() == [1, 1, 1, 0]


def test_generation_starts_from_the_end_token_or_a_new_line_or_0() -> None:
    assert start_token(trained(Characters(), "a\tb\n")) == 1
    assert start_token(trained(Characters(), "ab")) == 0
    assert start_token(trained(Characters(), "a\n", "b")) == 3
    assert start_token(Bytes()) == 256


@pytest.mark.parametrize("character", ["é", "\0", "~", "😀"])
def test_a_character_without_a_token_is_named_with_its_place(character: str) -> None:
    with pytest.raises(DataError) as refused:
        trained(Characters(), "abc\n").encode(f"ab\nc{character}a")
    assert str(refused.value) == (
        f"the vocabulary of 4 has no {character!r} (U+{ord(character):04X}), which is at character 4 (line 2): "
        "the training text has none."
    )


def test_nothing_learned_is_nothing_known() -> None:
    tokenizer = trained(Characters())
    assert tokenizer.vocab_size == 0
    assert tokenizer.encode("").tolist() == []
    with pytest.raises(DataError, match="has no 'a'"):
        tokenizer.encode("a")


# --- bytes ------------------------------------------------------------------------------------------------------------


def test_bytes_are_bytes() -> None:
    assert Bytes().encode("Aé").tolist() == [65, 0xC3, 0xA9]
    assert Bytes().decode([65, 0xC3, 0xA9, 256, 0xC3, 66]) == "Aé\ufffdB"
    assert Bytes().byte_lengths().tolist() == [1] * 256 + [0]


def test_a_stream_gives_a_character_when_it_is_whole() -> None:
    stream = StreamDecoder(Bytes())
    assert [stream.push(byte) for byte in "é😀!".encode()] == ["", "é", "", "", "", "😀", "!"]
    assert [stream.push(byte) for byte in (0xF0, 0x9F, 65)] == ["", "", "\ufffdA"]
    assert stream.push(0xF0) == ""
    assert stream.finish() == "\ufffd"


# --- byte pair encoding -----------------------------------------------------------------------------------------------


def test_the_most_frequent_pairs_become_tokens() -> None:
    """Sennrich et al. 2016, algorithm 1: low x 5, lower x 2, newest x 6, widest x 3 give es, est, lo, low."""
    words = ["low"] * 5 + ["lower"] * 2 + ["newest"] * 6 + ["widest"] * 3
    tokenizer = trained(BPE(257 + 4), "\n".join(words))
    learned = {tokenizer.bytes_of(token) for token in range(256, 260)}
    assert learned == {b"es", b"est", b"lo", b"low"}
    assert (tokenizer.vocab_size, tokenizer.end) == (261, 260)
    assert [tokenizer.bytes_of(int(token)) for token in tokenizer.encode("lowest")] == [b"low", b"est"]


def test_a_short_text_gives_fewer_tokens_than_asked_for() -> None:
    assert trained(BPE(5000), "ab ab").vocab_size == 256 + 1 + 1  # ab occurs twice, " ab" once
    assert trained(BPE(5000)).vocab_size == 257


def test_a_text_that_names_the_end_token_does_not_end() -> None:
    tokenizer = trained(BPE(257), PROSE)
    tokens = tokenizer.encode("a<|endoftext|>b")
    assert tokenizer.end not in tokens
    assert [tokenizer.bytes_of(int(token)).decode() for token in tokens] == list("a<|endoftext|>b")


SHOW = """
import sys
from genlab.data.tokenizer.bpe import BPE
tokenizer = BPE(400)
tokenizer.train(["the cat sat " * 50 + "on the mat, a bat\\n" * i for i in range(40)] + [str(i) for i in range(3000)])
print(tokenizer.fingerprint())
"""


def test_training_is_the_same_with_any_number_of_threads() -> None:
    found = set()
    for threads, parallel in (("1", "false"), ("4", "true")):
        environment = {**os.environ, "RAYON_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": parallel}
        done = subprocess.run([sys.executable, "-c", SHOW], env=environment, capture_output=True, text=True, check=True)
        found.add(done.stdout)
    assert len(found) == 1


def test_a_long_text_is_cut_where_no_token_is() -> None:
    rng = np.random.default_rng(0)
    words = ["cat", "😀", "don't", "1234", "...", "\n\n", "   ", "été", "x" * 20, "\r\n", "\u3000"]
    text = " ".join(words[i] for i in rng.integers(0, len(words), 60_000))
    tokenizer = BPE(400)
    tokenizer.train([text])
    parts = list(byte_level.pieces(text))
    assert len(parts) >= 3
    assert "".join(parts) == text
    whole = tokenizer.core.encode(text, add_special_tokens=False).ids
    assert tokenizer.encode(text).tolist() == whole
    assert list(byte_level.pieces("x" * 200_000)) == ["x" * 200_000]  # nowhere to cut


@pytest.mark.parametrize("size", [256, 0, -1])
def test_a_vocabulary_has_room_for_all_bytes(size: int) -> None:
    with pytest.raises(ConfigError, match=f"data.tokenizer.vocab_size must be a whole number >= 257, got {size}."):
        BPE(size)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    for make in (BPE, lambda: Pretrained("gpt2")):
        with pytest.raises(ConfigError) as refused:
            make()
        assert str(refused.value) == "this tokenizer needs a package: pip install 'genlab[text]'"


# --- trained by others ------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with the tokenizer.json of one that has been trained."""
    (tmp_path / "tokenizer.json").write_text(trained(BPE(300), PROSE * 5).state(), encoding="utf-8")
    return tmp_path


def refusal(tokenizer: Tokenizer) -> str:
    with pytest.raises(DataError) as refused:
        tokenizer.train([])
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_file_or_its_folder(saved: Path) -> None:
    original = trained(BPE(300), PROSE * 5)
    for name in (saved, saved / "tokenizer.json"):
        tokenizer = Pretrained(str(name))
        assert tokenizer.vocab_size == original.vocab_size
        assert tokenizer.end == original.end
        assert tokenizer.encode(PROSE).tolist() == original.encode(PROSE).tolist()
        assert tokenizer.decode(tokenizer.encode(PROSE)) == PROSE
    assert Pretrained(str(saved), end_token=None).end is None


def test_special_tokens_stand_for_nothing_and_other_added_ones_for_their_text(saved: Path) -> None:
    import tokenizers

    core = tokenizers.Tokenizer.from_file(str(saved / "tokenizer.json"))
    core.add_special_tokens(["<pad>"])
    core.add_tokens(["xyzzy"])
    core.enable_truncation(2)
    core.enable_padding(length=9)
    core.save(str(saved / "tokenizer.json"))
    tokenizer = Pretrained(str(saved))
    assert tokenizer.bytes_of(tokenizer.vocab_size - 2) == b""
    assert tokenizer.bytes_of(tokenizer.vocab_size - 1) == b"xyzzy"
    for text in ("a <pad> xyzzy été ", PROSE):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_files_of_other_tokenizers_are_refused(saved: Path) -> None:
    import tokenizers

    file = saved / "tokenizer.json"
    assert refusal(Pretrained(str(saved), "</s>")) == (
        f"data.tokenizer.name={saved}: the tokenizer has no special token </s> (it has: <|endoftext|>). "
        "Set data.tokenizer.end_token to one of them, or to null."
    )
    for token in ("<|endoftext|>", None):
        assert (Pretrained(str(saved), token).end is None) == (token is None)
    content = json.loads(file.read_text())
    content["model"]["vocab"]["zz"] = 4_000_000_000
    file.write_text(json.dumps(content))
    assert "it numbers its tokens up to more than 4,194,304." in refusal(Pretrained(str(file)))
    tokenizers.Tokenizer(tokenizers.models.WordPiece({"[UNK]": 0}, unk_token="[UNK]")).save(str(file))
    assert refusal(Pretrained(str(file))) == (
        f"data.tokenizer.name={file}: this tokenizer cannot be used: it has to be byte-level, as GPT-2's and Llama 3's "
        "are, or of SentencePiece, as Llama 2's is; and its model is WordPiece, without bytes for characters that have "
        "no token."
    )
    file.write_text("{}")
    assert refusal(Pretrained(str(file))).startswith(f"data.tokenizer.name={file}: this is not the state of a token")
    file.write_bytes(b"\xff\xfe")
    assert refusal(Pretrained(str(file))) == f"cannot read {file}, which data.tokenizer.name={file} leads to."


def test_names_that_lead_nowhere(saved: Path) -> None:
    assert refusal(Pretrained("/no/such/tokenizer.json")) == (
        "there is no file /no/such/tokenizer.json. Set data.tokenizer.name to a tokenizer.json, or to a name like gpt2."
    )
    assert refusal(Pretrained("nobody/has-this")) == (
        "the tokenizer nobody/has-this is not here and the Hugging Face Hub cannot be reached. Fetch "
        "https://huggingface.co/nobody/has-this/resolve/main/tokenizer.json and set data.tokenizer.name to that file."
    )
    assert Pretrained(str(saved / "tokenizer.json")).vocab_size > 256  # fetched, and set
