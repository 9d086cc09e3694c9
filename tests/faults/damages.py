"""A damaged checkpoint is never used, and never costs more than itself."""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from faults.runs import Place, check_same_end, variants
from faults.trial import Trial, spread
from genlab.checkpoint import read
from genlab.errors import CheckpointError

PROMISE = "a damaged checkpoint: the one before it and a warning that names both, or exit 3"
DAMAGES = ("truncated", "flipped", "empty", "missing")


def trials(scale: float) -> Iterator[Trial]:
    cells = [f"{variant}/{damage}" for variant in variants() for damage in DAMAGES]
    for name, cell in spread(cells, 100 * scale):
        yield Trial(f"damages/{name}", partial(damage_and_go_on, *cell.split("/")))


def damage_and_go_on(variant: str, damage: str, place: Place) -> None:
    reference = place.runs.reference(variant)
    run = place.outputs() / "family" / "run"
    shutil.copytree(place.runs.half(variant), run)
    newest, older = read.saved(run)
    both = place.chance.random() < 0.3
    for path in (newest, older) if both else (newest,):
        spoil(path, damage, place)
    usable = [path for path in (newest, older) if loads(path)]  # a flipped bit may lie where nothing is
    before = {path.name: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    life = place.go_on(run)
    code, said = life.end(), life.said()
    if not usable:
        assert code == 3, (code, said)
        assert said[-1].startswith("error: "), said
        assert before == {path.name: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        return
    assert code == 0, (code, said)
    warned = [f"warning: checkpoint {newest} is ", f"Using {older.name} instead."]
    if usable[0] == newest:
        assert not said, said
    else:
        assert len(said) == 1, said
        assert all(part in said[0] for part in warned), said
    check_same_end(run, reference)


def spoil(path: Path, damage: str, place: Place) -> None:
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
        return
    if damage == "flipped":
        content[place.chance.randrange(len(content))] ^= 1 << place.chance.randrange(8)
    path.write_bytes(content[: {"truncated": place.chance.randrange(1, len(content)), "empty": 0}.get(damage)])


def loads(path: Path) -> bool:
    try:
        read.load(path)
    except CheckpointError:
        return False
    return True
