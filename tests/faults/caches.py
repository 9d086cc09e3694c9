"""A kill while prepared data or features of a reference are written: nobody reads what is half there."""

import os
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from faults.life import KILLED, Shared
from faults.runs import Place, begun, check_same_end, newest_run
from faults.trial import Trial, spread
from genlab.data import array_cache

PROMISE = "a kill while a cache is made, after any block or rename: made again, the end is bit-identical"
VARIANTS = ("transformer", "transformer-text", "vae")  # prepared images, tokens, features alone
KILLS = 4  # of one trial


def trials(scale: float) -> Iterator[Trial]:
    for name, variant in spread(VARIANTS, 10 * scale):
        yield Trial(f"caches/{name}", partial(kill_and_go_on, variant), tried=KILLS)


def kill_and_go_on(variant: str, place: Place) -> None:
    reference, overrides = place.runs.reference(variant), place.runs.overrides(variant)
    moments = Shared()  # what a life that nobody harms writes
    whole = place.folder / "whole"
    assert life_with(place, whole, overrides, partial(dying_at, None, moments)).end() == 0
    assert moments.get() > 0, "nothing was cached"
    for number in range(KILLS):
        cache = place.folder / f"cache-{number}"
        outputs = place.outputs()
        killed = partial(dying_at, place.chance.randrange(moments.get()), Shared())
        assert life_with(place, cache, overrides, killed, outputs).end() == KILLED
        run = begun(outputs)
        if run is None:  # it died before anything was trained
            outputs = place.outputs()
            life = life_with(place, cache, overrides, lambda: None, outputs)
        else:
            life = place.go_on(run, env=cached_in(cache))
        assert life.end() == 0, life.said()
        check_same_end(newest_run(outputs), reference)
        assert not list(cache.rglob("*.part")), "a partial file is left in the cache"
        assert {path.name for path in cache.rglob("*.json")} == {path.name for path in whole.rglob("*.json")}


def cached_in(cache: Path) -> dict[str, str]:
    return {"GENLAB_CACHE": str(cache)}


def life_with(place: Place, cache: Path, overrides: Iterable[str], prepare: Any, outputs: Path | None = None) -> Any:
    own = (
        [f"data.cache_dir={cache}"] if any(name.startswith(("data.path=", "data.root=")) for name in overrides) else []
    )
    return place.begin(outputs or place.outputs(), *overrides, *own, prepare=prepare, env=cached_in(cache))


def dying_at(moment: int | None, moments: Shared) -> None:
    """In a child: it is gone after that many blocks and renames of the cache; None: they are counted."""
    seen = 0
    write_blocks, replace = array_cache._write_blocks, os.replace

    def pass_by() -> None:
        nonlocal seen
        if seen == moment:
            os._exit(KILLED)
        seen += 1
        moments.set(seen)

    def watched(blocks: Iterable[Any]) -> Iterator[Any]:
        for block in blocks:
            pass_by()
            yield block

    def written(file: Any, blocks: Iterable[Any], left_out: list[int]) -> None:
        write_blocks(file, watched(blocks), left_out)

    def replaced(source: Any, target: Any, **named: Any) -> None:
        if str(source).endswith(".part"):
            pass_by()
        replace(source, target, **named)

    array_cache._write_blocks = written
    os.replace = replaced
