"""CIFAR-10 and MNIST from a server on this machine, from a folder, and from nowhere."""

import gzip
import hashlib
import io
import multiprocessing
import pickle
import socket
import tarfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, MNIST, FashionMNIST

from genlab.data import download
from genlab.data.cifar10 import Cifar10
from genlab.data.mnist import FashionMnist, Mnist, binarized
from genlab.errors import ConfigError, DataError, StorageError

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
RNG = np.random.default_rng(0)
CIFAR_IMAGES = RNG.integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)  # five training files of 2, a test file of 2
MNIST_IMAGES = RNG.integers(0, 256, (7, 28, 28), dtype=np.uint8)  # 4 to train, 3 to test


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


class Server:
    """Serves ``folder`` and counts what was asked for."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.asked: list[str] = []

        class Handler(SimpleHTTPRequestHandler):
            def log_message(handler, *_: object) -> None:
                self.asked.append(handler.path)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.http.server_port}/"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "server").mkdir()
    server = Server(tmp_path / "server")
    thread = threading.Thread(target=server.http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


@pytest.fixture
def closed_url() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/"


@pytest.fixture
def cifar(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """An archive of the layout of CIFAR-10."""
    archive = io.BytesIO()
    sums = {}
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:

        def add(name: str, content: object) -> None:
            data = pickle.dumps(content)
            sums[name] = md5(data)
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))

        for i, name in enumerate([name for name, _ in CIFAR10.train_list + CIFAR10.test_list]):
            labels = [2 * i % 10, (2 * i + 1) % 10]
            add(name, {"data": CIFAR_IMAGES[2 * i : 2 * i + 2].reshape(2, -1), "labels": labels})
        add("batches.meta", {"label_names": CLASSES})
    (server.folder / "cifar-10-python.tar.gz").write_bytes(archive.getvalue())
    monkeypatch.setattr(CIFAR10, "url", server.url + "cifar-10-python.tar.gz")
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(archive.getvalue()))
    monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name]] for name, _ in CIFAR10.train_list])
    monkeypatch.setattr(CIFAR10, "test_list", [[name, sums[name]] for name, _ in CIFAR10.test_list])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": sums["batches.meta"]})
    return server


def check_cifar(data: Cifar10) -> None:
    train, val = data.table("train"), data.table("val")
    assert np.array_equal(train.images, CIFAR_IMAGES[:10])
    assert np.array_equal(val.images, CIFAR_IMAGES[10:])
    assert train.labels is not None
    assert train.labels.tolist() == list(range(10))
    assert train.labels.dtype == np.int64
    assert train.names == tuple(CLASSES)
    assert data.spec.shape == (3, 32, 32)


def test_cifar_is_downloaded_once_and_read(cifar: Server, tmp_path: Path) -> None:
    for _ in range(2):
        check_cifar(Cifar10(root=str(tmp_path / "data")))
    assert cifar.asked == ["/cifar-10-python.tar.gz"]
    assert not list(tmp_path.rglob("*.part"))


def test_cifar_is_unpacked_from_an_archive_that_is_there(cifar: Server, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (cifar.folder / "cifar-10-python.tar.gz").rename(tmp_path / "data/cifar-10-python.tar.gz")
    check_cifar(Cifar10(root=str(tmp_path / "data"), download=False))
    assert cifar.asked == []


def test_a_damaged_member_is_unpacked_again(cifar: Server, tmp_path: Path) -> None:
    Cifar10(root=str(tmp_path / "data")).table("train")
    (tmp_path / "data/cifar-10-batches-py/data_batch_3").write_bytes(b"short")
    check_cifar(Cifar10(root=str(tmp_path / "data")))
    assert len(cifar.asked) == 1


def _load_cifar(root: str) -> None:
    check_cifar(Cifar10(root=root))


def test_two_processes_download_once(cifar: Server, tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_load_cifar, args=(str(tmp_path / "data"),)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert cifar.asked == ["/cifar-10-python.tar.gz"]


def message(data: Cifar10 | Mnist | FashionMnist) -> str:
    with pytest.raises(DataError) as caught:
        data.table("train")
    return str(caught.value)


def test_cifar_offline(tmp_path: Path, closed_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(CIFAR10, "url", closed_url + "cifar-10-python.tar.gz")
    ask = "Put cifar-10-python.tar.gz (md5 c58f30108f718f92721af3b95e74349a) there."
    start = time.monotonic()
    assert message(Cifar10()) == f"CIFAR-10 is not in data/ and cannot be downloaded (no network). {ask}"
    assert time.monotonic() - start < 5
    assert message(Cifar10(download=False)) == (
        f"CIFAR-10 is not in data/ and cannot be downloaded (data.download=false). {ask}"
    )


def test_a_server_that_sends_something_else_or_nothing(
    cifar: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cifar.folder / "cifar-10-python.tar.gz").write_bytes(b"<html>")
    data = Cifar10(root=str(tmp_path / "data"))
    assert "(the file from 127.0.0.1 has another checksum)" in message(data)
    (cifar.folder / "cifar-10-python.tar.gz").unlink()
    assert "(127.0.0.1 answers 404)" in message(data)
    assert not [path for path in (tmp_path / "data").iterdir() if not path.name.startswith(".")]


def test_a_server_that_never_answers_does_not_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_TIMEOUT", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{silent.getsockname()[1]}/x")
        assert "(no network)" in message(Cifar10(root=str(tmp_path)))


def test_an_archive_cannot_write_outside_its_folder(cifar: Server, tmp_path: Path) -> None:
    path = cifar.folder / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo("../escaped")
        tar.addfile(member, io.BytesIO())
    CIFAR10.tgz_md5 = md5(path.read_bytes())  # the fixture puts it back
    with pytest.raises(DataError, match=r"is refused: '\.\./escaped' leads out of its folder\. Delete it"):
        Cifar10(root=str(tmp_path / "data")).table("train")
    assert not (tmp_path / "escaped").exists()


def idx(array: np.ndarray) -> bytes:
    """The format of MNIST, gzipped."""
    head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return gzip.compress(head + array.tobytes())


def mnist_files() -> dict[str, bytes]:
    return {
        "train-images-idx3-ubyte.gz": idx(MNIST_IMAGES[:4]),
        "train-labels-idx1-ubyte.gz": idx(np.array([3, 1, 4, 1], dtype=np.uint8)),
        "t10k-images-idx3-ubyte.gz": idx(MNIST_IMAGES[4:]),
        "t10k-labels-idx1-ubyte.gz": idx(np.array([5, 9, 2], dtype=np.uint8)),
    }


@pytest.mark.parametrize(("data", "source"), [(Mnist, MNIST), (FashionMnist, FashionMNIST)])
def test_mnist_is_downloaded_once_framed_and_read(
    data: type[Mnist] | type[FashionMnist],
    source: type[MNIST],
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = mnist_files()
    for name, content in files.items():
        (server.folder / name).write_bytes(content)
    monkeypatch.setattr(source, "mirrors", [server.url + "gone/", server.url])
    monkeypatch.setattr(source, "resources", [(name, md5(content)) for name, content in files.items()])
    root = tmp_path / "data"
    table = data(root=str(root)).table("train")
    assert table.images.shape == (4, 1, 32, 32)
    assert np.array_equal(table.images[:, 0, 2:30, 2:30], MNIST_IMAGES[:4])
    assert table.images.astype(int).sum() == MNIST_IMAGES[:4].astype(int).sum()
    assert table.labels is not None
    assert table.labels.tolist() == [3, 1, 4, 1]
    assert len(table.names) == 10
    val = data(root=str(root)).table("val")
    assert val.labels is not None
    assert val.labels.tolist() == [5, 9, 2]
    assert len(server.asked) == 12  # for each file: the dead mirror's 404 is logged twice, then the file
    (root / source.__name__ / "raw/train-labels-idx1-ubyte").write_bytes(b"\0\0\10\1\0\0\0\4\3")
    assert message(data(root=str(root))) == (
        f"a file in {root}/{source.__name__}/raw/ is damaged. Delete those that do not end in .gz and start again."
    )


def test_binary_mnist_is_drawn_once_and_split_in_three(tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, content in mnist_files().items():
        (folder / name.removesuffix(".gz")).write_bytes(gzip.decompress(content))
    gray = Mnist(str(tmp_path), padding=0, num_held_out=1)
    assert [len(gray.table(split)) for split in gray.splits] == [3, 1, 3]
    for split, images in (("train", MNIST_IMAGES[:3]), ("val", MNIST_IMAGES[3:4]), ("test", MNIST_IMAGES[4:])):
        assert np.array_equal(gray.table(split).images[:, 0], images)
    labels = gray.table("val").labels
    assert labels is not None
    assert labels.tolist() == [1]
    drawn = Mnist(str(tmp_path), padding=0, num_held_out=1, binarize_seed=3)
    whole = Mnist(str(tmp_path), padding=2, binarize_seed=3).table("train").images
    assert np.array_equal(whole[:3, :, 2:-2, 2:-2], drawn.table("train").images)  # a pixel's draw is its own
    assert set(np.unique(drawn.table("test").images)) == {0, 255}
    pixels = binarized(np.full((1500, 1, 20, 20), 64, dtype=np.uint8), seed=0)
    assert pixels.mean() / 255 == pytest.approx(64 / 255, abs=4 * (0.25 / pixels.size) ** 0.5)
    assert not np.array_equal(pixels[:750], pixels[750:])
    assert np.array_equal(binarized(pixels[:2], seed=1), pixels[:2])  # black and white stay
    with pytest.raises(ConfigError, match=r"^split=test: Mnist has no such split\. Use split=val\."):
        Mnist(str(tmp_path)).table("test")
    with pytest.raises(ConfigError, match=r"^data\.num_held_out=4 leaves nothing to train on: there are 4 "):
        Mnist(str(tmp_path), num_held_out=4).table("train")
    assert len(Mnist(str(tmp_path), num_held_out=3).table("train")) == 1


def test_mnist_offline(tmp_path: Path, closed_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(MNIST, "mirrors", [closed_url, closed_url])
    monkeypatch.setattr(FashionMNIST, "mirrors", [closed_url])
    assert message(Mnist()) == (
        "MNIST is not in data/MNIST/raw/ and cannot be downloaded (no network). "
        "Put train-images-idx3-ubyte.gz (md5 f68b3c2dcbeaaa9fbdd348bbdeb94873), "
        "train-labels-idx1-ubyte.gz (md5 d53e105ee54ea40749a09fcbcd1e9432), "
        "t10k-images-idx3-ubyte.gz (md5 9fb629c4189551a2d022fa330f9573f3) "
        "and t10k-labels-idx1-ubyte.gz (md5 ec29112dd5afa0611ce80d1b7f02629c) there."
    )
    assert message(FashionMnist()).startswith(
        "Fashion-MNIST is not in data/FashionMNIST/raw/ and cannot be downloaded (no network). Put train-images-"
    )


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(StorageError) as caught:
        Cifar10(root=str(tmp_path / "data")).table("train")
    assert str(caught.value) == f"cannot write to {tmp_path}/data/ (file exists)."
