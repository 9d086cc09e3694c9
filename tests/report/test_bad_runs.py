"""One bad run does not stop a comparison: it is left out, or what is bad of it, in a line that names it."""

import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from run_folders import BASELINES, config, make_run, measured, write

from genlab.errors import ConfigError
from genlab.report.comparison import LEFT_OUT, compare
from genlab.report.picture_file import LONGEST_SIDE, MOST_PIXELS, UnreadablePictureError, read_picture
from genlab.report.runs import Found, read_places, read_runs

GRID = "samples/examples=000000064000.png"
HEAD = "step,progress/examples,progress/flops,progress/seconds,val/fid\n"


def _aliases(run: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    write(run / "config.yaml", yaml.safe_dump(config()) + "\n".join(lines))


def _merge_keys(run: Path) -> None:
    lines = ["a0: &a0 {x: 1}"] + [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 12)]
    write(run / "config.yaml", yaml.safe_dump(config()) + "\n".join(lines))


def _config(text: str) -> Callable[[Path], None]:
    return lambda run: write(run / "config.yaml", yaml.safe_dump(config()) + text)


def _summary(**changes: object) -> Callable[[Path], None]:
    return lambda run: write(run / "summary.json", json.loads((run / "summary.json").read_text()) | changes)


def _raw_summary(text: str) -> Callable[[Path], None]:
    return lambda run: write(run / "summary.json", text)


def _binary(name: str) -> Callable[[Path], None]:
    return lambda run: (run / name).write_bytes(bytes(range(256)) * 8) and None


def _fifo(name: str) -> Callable[[Path], None]:
    def make(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)

    return make


def _endless(name: str) -> Callable[[Path], None]:
    def make(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to("/dev/zero")

    return make


def _sparse(name: str) -> Callable[[Path], None]:
    return lambda run: (run / name).write_bytes(b"") is None or os.truncate(run / name, 1 << 33)


def _folder(name: str) -> Callable[[Path], None]:
    def make(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        (run / name).mkdir()

    return make


OUT = {  # what is left out with its run
    "aliases": _aliases,
    "merge keys": _merge_keys,
    "an alias of itself": _config("\na: &a [*a]\n"),
    "deep flow": _config("\na: " + "[" * 100_000),
    "deep blocks": _config("\n" + "".join(" " * i + "a:\n" for i in range(900))),
    "many names": _config("\na:\n" + "".join(f" n{i}: 1\n" for i in range(6000))),
    "a long text": _config("\na: " + "b" * 30_000),
    "long digits": _config("\na: " + "9" * 100_000),
    "base 60": _config("\na: " + "1:" * 100_000 + "1"),
    "hexadecimal": _config("\na: 0x" + "f" * 390),
    "objects": _config("\na: !!python/object/apply:os.getpid []"),
    "a set": _config("\na: !!set {x}"),
    "binary": _config("\na: !!binary aGk="),
    "list keys": _config("\n? [a, b]\n: c"),
    "no config": lambda run: write(run / "config.yaml", "- a"),
    "model is text": lambda run: write(run / "config.yaml", "model: a\ndata: b"),
    "10^400": lambda run: _raw_summary((run / "summary.json").read_text().replace("827745", "1" + "0" * 400))(run),
    "10^400, a metric": lambda run: _raw_summary((run / "summary.json").read_text().replace("1.25", "1" + "0" * 400))(
        run
    ),
    "10^5000": lambda run: _raw_summary((run / "summary.json").read_text().replace("827745", "1" + "0" * 5000))(run),
    "deep JSON": _raw_summary('{"a":' * 100_000),
    "deep, but for a parser": _raw_summary('{"a":' * 200 + "1" + "}" * 200),
    "half of it": _raw_summary('{"metrics": '),
    "not UTF-8": _binary("summary.json"),
    "binary config": _binary("config.yaml"),
    "metrics: a list": _summary(metrics=[1]),
    "a metric: text": _summary(metrics={"fid_digits64_1k": "1"}),
    "a metric: null": _summary(metrics={"fid_digits64_1k": None}),
    "many metrics": _summary(metrics={f"m{i}": 1.0 for i in range(2000)}),
    "a long name": _summary(metrics={"m" * 10_000: 1.0}),
    "protocol: text": _summary(protocol="x"),
    "protocol.metrics: a list": _summary(protocol={"metrics": [1]}),
    "directions: lists": _summary(directions={"fid_digits64_1k": ["lower"]}),
    "baselines: numbers": _summary(baselines={"floor": 3}),
    "many baselines": _summary(baselines={str(i): BASELINES["floor"] for i in range(200)}),
    "cost: text": _summary(parameters="many"),
    "FIFO config": _fifo("config.yaml"),
    "FIFO summary": _fifo("summary.json"),
    "FIFO versions": _fifo("versions.json"),
    "FIFO evaluation": _fifo("evaluation-a.json"),
    "endless config": _endless("config.yaml"),
    "endless summary": _endless("summary.json"),
    "sparse config": _sparse("config.yaml"),
    "sparse summary": _sparse("summary.json"),
    "a folder for a summary": _folder("summary.json"),
    "evaluation of a list": lambda run: write(run / "evaluation-a.json", "[1]"),
}


@pytest.mark.parametrize("make", OUT.values(), ids=OUT)
def test_a_bad_run_is_left_out_by_name(make: Callable[[Path], None], tmp_path: Path) -> None:
    make_run(tmp_path / "good")
    make(make_run(tmp_path / "bad", seed=1))
    found = read_places([str(tmp_path)])
    assert [run.folder.name for run in found.runs] == ["good"]
    (line,) = found.left_out
    assert str(tmp_path / "bad") in line
    assert "\n" not in line
    assert len(line) < 1000
    with pytest.raises(ConfigError, match="bad"):
        read_runs([str(tmp_path)])


ODD = {  # what is odd, and no reason to leave the run out
    "keys of other types": _config("\n1: a\n2020-01-01: b\nnull: c\n"),
    "a date": _config("\na: 2020-01-01\n"),
    "not a number": _summary(metrics={"fid_digits64_1k": float("nan")}),
    "infinite": _summary(metrics={"fid_digits64_1k": float("inf")}, flops=float("inf")),
    "1e308": _summary(metrics={"fid_digits64_1k": 1e308}, flops=1e308, seconds=-1e308),
    "seed: text": lambda run: write(run / "config.yaml", yaml.safe_dump(config(seed="x"))),
    "seed: large": lambda run: write(run / "config.yaml", yaml.safe_dump(config(seed=10**300))),
    "budget: text": lambda run: write(run / "config.yaml", yaml.safe_dump(config(budget="x"))),
    "budget: not a number": lambda run: write(run / "config.yaml", yaml.safe_dump(config(budget__value=float("nan")))),
    "gpus: numbers": lambda run: write(run / "versions.json", {"hardware": {"gpus": [1, {}]}}),
    "num_samples: text": lambda run: write(run / "evaluation-a.json",
                                           measured(None, {"num_reference": [1]}) | {"protocol_id": ["a"]}),
}  # fmt: skip


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One comparison of all of them."""
    root = tmp_path_factory.mktemp("odd")
    for i, make in enumerate(ODD.values()):
        make(make_run(root / "runs" / f"odd{i}", data__width=i))
        make(make_run(root / "going" / f"odd{i}", data__width=i))
        (root / "going" / f"odd{i}" / "summary.json").unlink()
        write(
            root / "going" / f"odd{i}" / "metrics.csv",
            HEAD + "0,1e308,inf,nan,1e308\n1,-1e308,x,1,-1e308\n2,3e300,3e305,3,-1\n",
        )
    return root


@pytest.mark.parametrize("place", ["runs", "going"])
def test_odd_values_are_compared(odd: Path, place: str, capsys: pytest.CaptureFixture[str]) -> None:
    compare([str(odd / place)], out=str(odd / f"{place}-out"), plots=False, allow_unequal=True)
    assert LEFT_OUT not in capsys.readouterr().out
    assert len(read_places([str(odd / place)]).runs) == len(ODD)


# --- What is left out of a run that stays


def _png(width: int, height: int, rows: bytes = b"", more: bytes = b"") -> bytes:
    """Of any size, whatever its pixels are."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + more + data + chunk(b"IEND", b"")


def _second_header() -> bytes:
    head = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    more = struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    return _png(4, 4, bytes(13 * 4), more)


PICTURES = {
    "13k": _png(13_000, 13_000),
    "50k": _png(50_000, 50_000),
    "2 billion": _png(1 << 31, 1 << 31),
    "a line": _png(LONGEST_SIDE + 1, 1, bytes(3 * LONGEST_SIDE + 4)),
    "no pixels": _png(0, 0),
    "truncated": _png(64, 64, bytes(64 * 64 * 3 + 64))[:60],
    "larger than its data": _png(2048, 2048, bytes(100)),
    "two headers": _second_header(),
    "empty": b"",
    "binary": bytes(range(256)) * 8,
    "GIF": b"GIF89a" + bytes(100),
}


@pytest.mark.parametrize("content", PICTURES.values(), ids=PICTURES)
def test_a_bad_picture_is_refused_before_it_takes_memory(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "samples" / "a.png"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(UnreadablePictureError) as refused:
        read_picture(path)
    assert "\n" not in str(refused.value)


def test_pictures_up_to_the_limit_are_read(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    path = tmp_path / "samples" / "a.png"
    path.write_bytes(_png(512, 512, bytes(512 * (3 * 512 + 1))))
    assert read_picture(path).size == (512, 512)
    assert read_picture(path, tallest=128).size == (128, 128)
    assert MOST_PIXELS >= (8 * 512) * (10 * 512)


TABLES = {
    "a long line": HEAD + "0,1,1,1," + "9" * (2 << 20) + "\n1,2,2,2,3\n",
    "a long cell": HEAD + "0,1,1,1," + "9" * (1 << 18) + "\n",
    "no line end": "9" * (3 << 20),
    "an open quote": HEAD + '0,1,1,1,"' + "9,9\n" * 50_000,
    "many columns": ",".join(map(str, range(5000))) + "\n",
}


@pytest.mark.parametrize("content", TABLES.values(), ids=TABLES)
def test_a_bad_table_leaves_out_the_curves_and_nothing_else(content: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "bad")
    write(run / "metrics.csv", content)
    (read,) = read_places([str(tmp_path)]).runs
    assert str(run / "metrics.csv") in read.logged.problem
    assert not read.logged.curves
    assert read.state() == "no step recorded"


@pytest.mark.parametrize("make", [_fifo, _endless, _sparse, _folder], ids=lambda make: make.__name__.strip("_"))
def test_what_is_no_regular_file_is_neither_waited_for_nor_read(
    make: Callable[[str], Callable[[Path], None]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "runs" / "good")
    bad = make_run(tmp_path / "runs" / "bad", seed=1)
    for name in ("metrics.csv", GRID, "samples/examples=000000006400.png", "samples/examples=000000000001.txt"):
        make(name)(bad)
    compare([str(tmp_path / "runs")], out=str(tmp_path / "out"), plots=False)
    told = capsys.readouterr().out.partition(f"{LEFT_OUT}:\n")[2].split("\n\n")[0]
    assert f"{bad / 'metrics.csv'} cannot be read (" in told
    assert f"{bad / 'samples/examples=000000006400.png'} and 1 more cannot be read (" in told
    assert told.count("\n") == 1  # a line each
    assert "good" not in told
    shown = (tmp_path / "out" / "comparison.csv").read_text()
    assert f"{bad}\n" in shown
    assert "runs/good\n" in shown


def test_where_nothing_is_left_the_first_reason_is_the_error(tmp_path: Path) -> None:
    _aliases(make_run(tmp_path / "bad"))
    with pytest.raises(ConfigError, match=r"bad/config\.yaml \(it holds more"):
        compare([str(tmp_path)])


def test_an_error_that_nobody_thought_of_is_said_of_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "bad")
    make_run(tmp_path / "good", seed=1)
    monkeypatch.setattr(
        "genlab.report.runs._hardware", lambda path: {}["\x1b[2J\n"] if path.parent.name == "bad" else None
    )
    found: Found = read_places([str(tmp_path)])
    assert [run.folder.name for run in found.runs] == ["good"]
    assert found.left_out == [f"{tmp_path / 'bad'}: not what genlab writes (KeyError: '\\x1b[2J\\n')."]
