"""Folders of feedback without a model, and a client of their page."""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np

from genlab.feedback.server import Page
from genlab.feedback.session import PICTURES, VIDEOS, Item, Output, Session, create
from genlab.sampling.png import save_png

RUNS = ("outputs/a", "outputs/b")


def folder(
    path: Path,
    texts: Sequence[tuple[str, ...]],
    rate: bool = False,
    sources: Sequence[str] = RUNS,
    prompts: Sequence[str] | None = None,
) -> Path:
    """Pairs of texts, or texts to rate, of which the first of each is the first run's."""
    path.mkdir(parents=True, exist_ok=True)
    items = [
        Item(
            prompts[i] if prompts else f"prompt {i}", tuple(Output(source, i, text) for source, text in enumerate(pair))
        )
        for i, pair in enumerate(texts)
    ]
    create(path, {"kind": "text", "sources": list(sources), "rate": rate, "seed": 0, "asked": {}}, items)
    return path


WEBM = b"\x1aE\xdf\xa3"  # how such a file begins


def videos(path: Path, contents: Sequence[tuple[bytes, bytes]]) -> Path:
    """Pairs of .webm files."""
    for source in (0, 1):
        (path / VIDEOS.format(source)).mkdir(parents=True)
        for i, pair in enumerate(contents):
            (path / VIDEOS.format(source) / f"{i:06d}.webm").write_bytes(pair[source])
    outputs = [(Output(0, i, suffix=".webm"), Output(1, i, suffix=".webm")) for i in range(len(contents))]
    facts = {"kind": "video", "sources": list(RUNS), "rate": False, "seed": 0, "asked": {}}
    create(path, facts, [Item(None, pair) for pair in outputs])
    return path


def pictures(path: Path, count: int = 12) -> Path:
    for source in (0, 1):
        (path / PICTURES.format(source)).mkdir(parents=True)
        for i in range(count):
            pixels = np.full((8, 8, 1), 20 * i + source, np.uint8)
            save_png(pixels, path / PICTURES.format(source) / f"{i:06d}.png")
    items = [Item(None, (Output(0, i), Output(1, i))) for i in range(count)]
    create(path, {"kind": "image", "sources": list(RUNS), "rate": False, "seed": 0, "asked": {}}, items)
    return path


class Client:
    def __init__(self, page: Page):
        self.page = page

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str | None
    ) -> tuple[int, bytes, dict[str, str]]:
        """``headers`` in place of a browser's, ``_`` for ``-``; None: without."""
        own = {"Host": self.page.hosts[0], "Origin": f"http://{self.page.hosts[0]}", "Content-Type": "application/json"}
        sent = own | {"Content-Length": str(len(body or b""))} | {k.replace("_", "-"): v for k, v in headers.items()}
        connection = HTTPConnection("127.0.0.1", self.page.server_port, timeout=30)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.items():
                if value is not None:
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()}
        finally:
            connection.close()

    def get(self, path: str, **headers: str | None) -> tuple[int, bytes, dict[str, str]]:
        return self.ask("GET", f"/{self.page.token}/{path}", None, **headers)

    def post(self, answer: Any, to: str = "judge", **headers: str | None) -> tuple[int, Any]:
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        status, content, _ = self.ask("POST", f"/{self.page.token}/{to}", body, **headers)
        return status, json.loads(content) if status == 200 else content.decode()

    def state(self) -> Any:
        return json.loads(self.get("state")[1])


@contextmanager
def served(path: Path, port: int = 0) -> Iterator[Client]:
    with Page(Session(path), port) as page:
        thread = threading.Thread(target=page.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Client(page)
        finally:
            page.shutdown()
            thread.join()


def choice(showing: int, choice: str = "left", **more: Any) -> dict[str, Any]:
    return {"showing": showing, "choice": choice, "seconds": 1.5, **more}
