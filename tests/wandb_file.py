"""What an offline run of Weights & Biases holds, read from its file: records of protobuf in a log like LevelDB's."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_HEADER, _BLOCK = 7, 32768  # bytes: of the file, and of each piece; pieces do not cross blocks
_WHOLE, _LAST = 1, 4  # kinds of pieces; first and middle ones are 2 and 3


def records(path: Path) -> Iterator[Any]:
    """The records of a ``.wandb`` file, in order."""
    from wandb.proto.wandb_internal_pb2 import Record

    content = path.read_bytes()
    assert content.startswith(b":W&B")
    at, held = _HEADER, b""
    while at + _HEADER <= len(content):
        if (left := _BLOCK - at % _BLOCK) < _HEADER:
            at += left
            continue
        size, kind = struct.unpack("<HB", content[at + 4 : at + _HEADER])
        held += content[at + _HEADER : at + _HEADER + size]
        at += _HEADER + size
        if kind in (_WHOLE, _LAST):
            record = Record()
            record.ParseFromString(held)
            held = b""
            yield record


def complete(path: Path, patience: float = 30.0) -> list[Any]:
    """The records of a run that has ended: W&B's service may still be writing the last of them."""
    began = time.monotonic()
    while True:
        found = list(records(path))
        if found and found[-1].WhichOneof("record_type") == "exit":
            return found
        assert time.monotonic() - began < patience, f"{path} has no end"
        time.sleep(0.05)


class Received:
    """What W&B has of a run."""

    def __init__(self, path: Path):
        self.run: Any = None
        self.config: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.x_axes: dict[str, str] = {}
        self.artifacts: list[Any] = []
        for record in complete(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.run = record.run
            elif kind == "config":
                self.config |= _values(record.config.update)
            elif kind == "history":
                self.history.append(_values(record.history.item))
            elif kind == "summary":
                self.summary |= _values(record.summary.update)
            elif kind == "metric" and record.metric.step_metric:
                self.x_axes[record.metric.name or record.metric.glob_name] = record.metric.step_metric
            elif kind == "artifact":
                self.artifacts.append(record.artifact)

    def curve(self, name: str) -> list[tuple[Any, Any]]:
        """(x, y) of every row that holds both."""
        axis = self.x_axes["*"]
        return [(row[axis], row[name]) for row in self.history if name in row]


def _values(items: Any) -> dict[str, Any]:
    """Of a message's key/value pairs; the parts of a nested key are joined with dots."""
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}
