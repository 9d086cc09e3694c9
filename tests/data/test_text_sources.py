"""Where text comes from: which part is held out, line ends and encodings, and what is refused."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from genlab.cli import run as command_line
from genlab.data import shakespeare
from genlab.data.download import Archive
from genlab.data.held_out import held_out_names, name_hash
from genlab.data.python_docs import PythonDocs
from genlab.data.python_source import PythonSource
from genlab.data.shakespeare import Shakespeare
from genlab.data.text_file import TextFile
from genlab.data.text_folder import TextFolder
from genlab.data.tokenizer.bytes import Bytes
from genlab.data.tokenizer.characters import Characters
from genlab.errors import ConfigError, DataError, GenlabError

PLAY = "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n" * 5


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "cache"))


def refusal(read: Callable[[], object]) -> str:
    with pytest.raises(DataError) as refused:
        read()
    assert "\n" not in str(refused.value)
    return str(refused.value)


# --- Shakespeare ------------------------------------------------------------------------------------------------------


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file at a server, with a play in the place of all of them."""
    path = tmp_path / "server" / "input.txt"
    path.parent.mkdir()
    path.write_text(PLAY)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(path.parent)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/input.txt"
    archive = Archive("input.txt", hashlib.sha256(PLAY.encode()).hexdigest(), (url,), "sha256")
    monkeypatch.setattr(shakespeare, "_ARCHIVE", archive)
    monkeypatch.chdir(tmp_path)
    yield path
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_last_tenth_of_the_characters_is_held_out(play: Path) -> None:
    data = Shakespeare(Characters(), path=str(play), context=8)
    train, val = ("".join(data.documents(split)) for split in ("train", "val"))  # type: ignore[arg-type]
    assert train + val == PLAY
    assert len(train) == int(0.9 * len(PLAY))
    assert "".join(data.tokenizer.decode(data.tokens(split)) for split in ("train", "val")) == PLAY  # type: ignore
    numbers = {character: i for i, character in enumerate(sorted(set(PLAY)))}
    assert data.tokens("train").tolist() == [numbers[c] for c in PLAY[: int(0.9 * len(PLAY))]]


def test_it_is_downloaded_once(play: Path) -> None:
    text = PLAY[: int(0.9 * len(PLAY))]
    assert list(Shakespeare(Bytes()).documents("train")) == [text]
    play.unlink()
    assert list(Shakespeare(Bytes()).documents("train")) == [text]
    assert Path("data/tinyshakespeare/input.txt").read_text() == PLAY


def test_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checksum = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
    assert refusal(lambda: Shakespeare(Bytes(), download=False).documents("train")) == (
        "Tiny Shakespeare is not in data/tinyshakespeare/ and cannot be downloaded (data.download=false). "
        f"Put input.txt (sha256 {checksum}) there. Or set data.path to a copy of it."
    )


def test_a_copy_needs_no_network(play: Path) -> None:
    play.rename("copy.txt")
    with pytest.raises(DataError, match=r"Or set data\.path to a copy of it\.$"):
        Shakespeare(Bytes(), download=False).documents("train")
    copied = Shakespeare(Bytes(), path="copy.txt", download=False)
    assert list(copied.documents("train")) == [PLAY[: int(0.9 * len(PLAY))]]


def test_another_text_is_not_shakespeare(play: Path) -> None:
    play.write_text(PLAY + ".")
    assert refusal(lambda: Shakespeare(Bytes(), path=str(play)).documents("val")) == (
        f"{play} is not Tiny Shakespeare. For another text: data=text_file."
    )
    assert "".join(TextFile(Bytes(), str(play)).documents("train")) in PLAY
    assert refusal(lambda: Shakespeare(Bytes(), path="/no/such").documents("val")) == "there is no file /no/such."
    assert "(the file from 127.0.0.1 has another checksum)" in refusal(lambda: Shakespeare(Bytes()).documents("val"))


# --- a file -----------------------------------------------------------------------------------------------------------


def test_a_file_is_read_as_it_is(tmp_path: Path) -> None:
    text = "one\r\ntwo\rthree\n\0 é 😀 \u2028" * 10
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    data = TextFile(Bytes(), str(tmp_path / "a.txt"), val_fraction=0.25)
    train, val = ("".join(data.documents(split)) for split in ("train", "val"))  # type: ignore[arg-type]
    assert train + val == text
    assert len(train) == int(0.75 * len(text))
    (tmp_path / "b.txt").write_text("held out")
    data = TextFile(Bytes(), str(tmp_path / "a.txt"), val_path=str(tmp_path / "b.txt"))
    assert [*data.documents("train"), *data.documents("val")] == [text, "held out"]


@pytest.mark.parametrize(
    ("content", "where", "encoding"),
    [
        (b"h\xe9llo", "byte 0xE9 at offset 1 (line 1)", "LATIN1"),
        (b"caf\xc3\xa9\n\nol\xe9", "byte 0xE9 at offset 9 (line 3)", "LATIN1"),
        ("hello".encode("utf-16"), "byte 0xFF at offset 0 (line 1)", "UTF-16"),
        (b"cut \xf0\x9f", "byte 0xF0 at offset 4 (line 1)", "LATIN1"),
    ],
)
def test_what_is_not_utf_8_is_refused_with_its_place(content: bytes, where: str, encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    text = f"{path} is not UTF-8: {where}. Convert with: iconv -f {encoding} -t UTF-8."
    assert refusal(lambda: TextFile(Bytes(), str(path)).documents("train")) == text
    assert refusal(lambda: list(TextFolder(Bytes(), str(tmp_path), val_root=str(tmp_path)).documents("val"))) == text


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    text = refusal(lambda: TextFile(Bytes(), str(tmp_path)).documents("train"))
    assert text == f"cannot read {tmp_path} (is a directory)."


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0])
def test_a_part_is_a_part(fraction: float) -> None:
    for make in (TextFile, TextFolder):
        with pytest.raises(ConfigError, match=f"data.val_fraction must lie between 0 and 1, got {fraction}"):
            make(Bytes(), "x", val_fraction=fraction)


def test_the_command_line_says_it_in_one_line(tmp_path: Path, outputs: Path) -> None:
    def refused(*overrides: str) -> GenlabError:
        given = ("train", "data=text_file", *overrides, f"outputs={outputs}", "dry_run=true", "logger=[none]")
        with pytest.raises(GenlabError) as caught:
            command_line([*given, "metrics=[]", "metrics/extractor=random"])
        assert not outputs.exists()
        return caught.value

    path = tmp_path / "text.txt"
    path.write_bytes(b"h\xe9llo")
    error = refused(f"data.path={path}")
    assert (error.exit_code, str(error)) == (
        5,
        f"{path} is not UTF-8: byte 0xE9 at offset 1 (line 1). Convert with: iconv -f LATIN1 -t UTF-8.",
    )
    path.write_text("")
    for more in ((), ("data/tokenizer=characters",), ("data/tokenizer=bpe", "data.tokenizer.vocab_size=300")):
        error = refused(f"data.path={path}", *more)
        text = f"{path} has 0 tokens; at least 65 are needed for data.context=64."
        assert (error.exit_code, str(error)) == (5, text)
    path.write_text("abc" * 100)
    error = refused(f"data.path={path}", "data.context=100")
    text = f"the held-out part of {path} has 31 tokens; at least 101 are needed for data.context=100."
    assert (error.exit_code, str(error)) == (5, text)
    error = refused()
    assert (error.exit_code, str(error)) == (2, "data.path has no value. Set it: data.path=/path/to/text.txt")
    error = refused(f"data.path={path}", "data/tokenizer=bpe", "data.tokenizer.vocab_size=x")
    assert error.exit_code == 2
    assert str(error).startswith("data.tokenizer.vocab_size must be a whole number")
    error = refused("data=digits", "data/tokenizer=bpe")
    assert error.exit_code == 2
    assert str(error).startswith(
        "data/tokenizer cannot be chosen: the data has no tokenizer. Choose one that has: data="
    )
    error = refused(f"data.path={path}", "model=diffusion", "data.context=8")
    assert error.exit_code == 2
    assert str(error).startswith("Diffusion cannot be trained on text data.")


# --- a folder ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "texts"
    for i in range(30):
        path = root / ("a" if i % 2 else "b/c") / f"{i}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text {i}\n")
    (root / "a" / "note.md").write_text("markdown")
    (root / ".git").mkdir()
    (root / ".git" / "x.txt").write_text("hidden")
    return root


def test_each_file_is_a_document(folder: Path) -> None:
    data = TextFolder(Bytes(), str(folder), val_fraction=0.3)
    train, val = (list(data.documents(split)) for split in ("train", "val"))  # type: ignore[arg-type]
    assert sorted(train + val) == sorted(f"text {i}\n" for i in range(30))
    assert 3 <= len(val) <= 15
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("[0-9]*.txt"))
    assert val == [(folder / name).read_text() for name in names if name_hash(name) < 0.3]
    assert list(TextFolder(Bytes(), str(folder), "**/*.md", str(folder)).documents("train")) == ["markdown"]


def test_a_file_stays_on_its_side_when_others_come(folder: Path) -> None:
    before = set(TextFolder(Bytes(), str(folder)).documents("val"))
    for i in range(50):
        (folder / f"new{i}.txt").write_text("new")
    after = set(TextFolder(Bytes(), str(folder)).documents("val"))
    assert before <= after <= before | {"new"}


def test_folders_without_texts_are_refused(folder: Path) -> None:
    empty = folder / "empty"
    empty.mkdir()
    assert refusal(lambda: TextFolder(Bytes(), str(empty)).documents("train")) == (
        f"no texts found in {empty} (looked for **/*.txt). Set data.pattern."
    )
    assert refusal(lambda: TextFolder(Bytes(), "/no/such").documents("train")) == (
        "/no/such is not a folder. Set data.root to a folder of texts."
    )
    (empty / "one.txt").write_text("one")
    assert refusal(lambda: TextFolder(Bytes(), str(empty)).documents("val")) == (
        f"{empty} has one text; at least one to train and one to hold out are needed."
    )
    for pattern in ("/abs/*.txt", ""):
        text = refusal(lambda pattern=pattern: TextFolder(Bytes(), str(folder), pattern).documents("train"))  # type: ignore
        assert text.startswith(f"data.pattern={pattern} is not a pattern like **/*.txt (")


def test_each_side_has_a_name() -> None:
    names = [f"{i}.txt" for i in range(9)]
    by_hash = sorted(names, key=name_hash)
    assert held_out_names(names, 1e-9) == {by_hash[0]}
    assert held_out_names(names, 1 - 1e-9) == set(by_hash[:-1])


# --- what comes with Python -------------------------------------------------------------------------------------------


def test_python_has_docs() -> None:
    from pydoc_data.topics import topics

    data = PythonDocs(Bytes())
    train, val = (list(data.documents(split)) for split in ("train", "val"))  # type: ignore[arg-type]
    assert sorted(train + val) == sorted(topics.values())
    assert val == [topics[name] for name in sorted(topics) if name_hash(name) < 0.1]
    assert 2 <= len(val) <= len(train) // 4
    assert data.spec.vocab_size == 257
    assert data.tokenizer.decode(data.tokens("val")) == "".join(val)


def test_python_has_sources() -> None:
    data = PythonSource(Bytes())
    train, val = (list(data.documents(split)) for split in ("train", "val"))  # type: ignore[arg-type]
    assert 300 < len(train) < 2000
    assert len(train) // 20 < len(val) < len(train) // 5
    assert sum(map(len, train)) > 3_000_000
    mine = Path(os.__file__).read_bytes().decode()
    assert (mine in train) != (mine in val)
    assert not any("import pytest" in text for text in train + val)
    assert data.text_hash("train") != data.text_hash("val")
