"""Runs of reward models: they learn, begin with trained transformers, and two devices take the steps of one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from chats import SMALL, lines
from genlab.checkpoint import read
from genlab.cli import run as command_line
from genlab.errors import ConfigError, DataError
from genlab.interop.origin import HubOrigin
from genlab.run.load import load_run
from genlab.run.run_folder import read_config
from preferred import pairs
from test_ddp import finish
from test_finetune import base_in
from test_judged import pictures
from tiny_run import only_run, start, train

WORDS = {"fine": 1, "great": 1, "poor": -1, "awful": -1, "tree": 0, "day": 0, "walk": 0}


def rated(folder: Path, count: int = 400) -> tuple[str, ...]:
    """The overrides that read texts of four words, whose rating three good or bad words decide."""
    draw = np.random.default_rng(0)
    rows = []
    for _ in range(count):
        text = draw.choice([*WORDS], 4)
        rows.append({"completion": " ".join(text), "rating": 3 + 0.5 * sum(WORDS[word] for word in text)})
    path = lines(rows, folder / "ratings.jsonl")
    return (
        "data=ratings",
        f"data.path={path}",
        f"data.cache_dir={folder / 'cache'}",
        "data.context=48",
        "data.template=plain",
        "model=reward",
    )


def measured(run: Path) -> dict[str, float]:
    return {name: float(value) for name, value in json.loads((run / "summary.json").read_text())["metrics"].items()}


def test_a_reward_model_learns_which_words_are_good(tmp_path: Path) -> None:
    run = train(
        *rated(tmp_path, 200),
        "model.network.width=16",
        "model.network.num_heads=2",
        "model.network.depth=1",
        "model.network.dropout=0",
        "model.optimizer.lr=1e-2",
        "model.schedule.warmup=100",
        "budget.value=4_000",
        "data.batch_size=20",
        "data.limit=null",
        "callbacks.ema.half_life=400",
        "metrics=[reward_accuracy]",
        "metrics.reward_accuracy.baseline=true",
        outputs=tmp_path / "runs",
    )
    found = measured(run)
    assert found["pair_accuracy_val"] > 0.9
    assert found["rating_rmse_val"] < 0.3
    assert found["longer_wins_val"] < 0.75
    assert found["tfidf_accuracy_val"] > 0.9
    model, _ = load_run(OmegaConf.create(read_config(run)), run)
    assert model.members == 1


def test_a_reward_model_of_pictures_learns_what_is_preferred(tmp_path: Path) -> None:
    """A square in the noise, wherever it is."""
    given, draw = pictures(tmp_path), np.random.default_rng(1)
    for line in (tmp_path / "pairs.jsonl").read_text().splitlines():
        pixels = draw.integers(0, 256, (16, 16), np.uint8)
        top, left = draw.integers(0, 11, 2)
        pixels[top : top + 6, left : left + 6] = 255
        Image.fromarray(pixels).save(tmp_path / json.loads(line)["chosen"])
    run = train(
        *given,
        "model=image_reward",
        "model.network.channels=8",
        "model.schedule.warmup=50",
        "budget.value=1_000",
        "data.batch_size=8",
        "data.limit=null",
        "callbacks.ema.half_life=50",
        "metrics=[reward_accuracy]",
        outputs=tmp_path / "runs",
    )
    assert measured(run)["pair_accuracy_val"] == 1.0


@pytest.fixture(scope="module")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transformer")
    (folder / "t.txt").write_text("fine great poor awful tree day walk. " * 200)
    return train(
        "model=transformer",
        "data=text_file",
        f"data.path={folder / 't.txt'}",
        "data/tokenizer=bytes",
        "model.network.tied=false",
        *SMALL,
        "data.context=64",
        "budget.value=8",
        outputs=folder / "run",
    )


def state(run: Path) -> dict[str, torch.Tensor]:
    return dict(read.newest(run).content["state_dict"])


def test_it_begins_with_a_trained_transformer(transformer: Path, tmp_path: Path) -> None:
    """Each member, and what the first step has not changed: the map to logits, and with an adapter the network."""
    given = (
        *rated(tmp_path),
        *SMALL,
        "model.network.tied=false",
        f"start={transformer}",
        "model.members=2",
        "budget.value=16",
        "data.batch_size=8",
        "model.network.dropout=0",
    )
    first = read.newest(transformer).content["ema"]
    run = train(*given, "model.optimizer.lr=1e-9", outputs=tmp_path / "whole")
    for name, value in state(run).items():
        of = name.removeprefix("others.0.")
        if of.startswith("network."):
            torch.testing.assert_close(value, first[of], rtol=0, atol=1e-6)
    adapted = state(train(*given, "model/adapter=lora", outputs=tmp_path / "adapted"))
    kept = {name for name in adapted if name.startswith("network.") and ".updates." not in name}
    assert kept == {name for name in first if name.startswith("network.")}
    assert all(torch.equal(adapted[name], first[name]) for name in kept)
    assert any(".updates." in name for name in adapted)
    assert adapted["head.weight"].any()


def test_a_reward_model_goes_on_from_another(transformer: Path, tmp_path: Path) -> None:
    given = (*rated(tmp_path), *SMALL, "budget.value=8", "data.batch_size=8")
    before = train(*given, outputs=tmp_path / "before")
    after = state(train(*given, f"start={before}", "model.optimizer.lr=1e-9", outputs=tmp_path / "after"))
    first = read.newest(before).content["ema"]
    torch.testing.assert_close(after["head.weight"], first["head.weight"], rtol=0, atol=1e-6)


def test_it_begins_with_a_language_model_of_transformers(tmp_path: Path) -> None:
    """Its network and its tokenizer; with an adapter the network stays as it is, and the first reward is 0."""
    base = base_in(tmp_path / "base")
    given = (
        *rated(tmp_path, 60)[:4],
        "data.template=plain",
        "model=reward",
        f"start=hf:{base}",
        "model/adapter=lora",
        "data.batch_size=8",
    )
    run = train(*given, "budget.value=16", outputs=tmp_path / "runs")
    found, first = state(run), HubOrigin(f"hf:{base}", "start").weights()
    kept = {name.removeprefix("network."): value for name, value in found.items() if name.startswith("network.")}
    assert all(torch.equal(kept[name], value) for name, value in first.items())
    assert found["head.weight"].any()
    model, _ = load_run(OmegaConf.create(read_config(run)), run)
    assert sum(p.requires_grad for p in model.network.parameters()) == sum(".updates." in name for name in kept)


@pytest.mark.matrix  # two processes that start anew
@pytest.mark.parametrize("kind", ["ratings", "preferences"])
def test_two_ranks_take_the_same_steps(kind: str, tmp_path: Path) -> None:
    data: Any = rated(tmp_path) if kind == "ratings" else (*pairs(tmp_path), "model=reward", "data.template=plain")
    # A large eps: without it Adam divides by gradients that are next to nothing, of networks whose head begins at zero.
    given = (
        *data,
        *SMALL,
        "model.network.dropout=0",
        "model.members=2",
        "budget.value=48",
        "data.batch_size=8",
        "model.optimizer.eps=1e-3",
    )
    alone = state(train(*given, outputs=tmp_path / "one"))
    finish(start(*given, "trainer=ddp_cpu", outputs=tmp_path / "two"))
    together = state(only_run(tmp_path / "two"))
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=0, atol=1e-6)


def refused(*typed: str, outputs: Path) -> str:
    with pytest.raises((ConfigError, DataError)) as caught:
        command_line(["train", "trainer=cpu", "logger=[none]", *typed, f"outputs={outputs}"])
    assert "\n" not in str(caught.value)
    assert not outputs.exists()
    return str(caught.value)


def test_what_does_not_fit_is_refused_in_a_line(transformer: Path, tmp_path: Path) -> None:
    data, outputs = rated(tmp_path), tmp_path / "out"
    said = refused(
        *data, *SMALL, "model.network.tied=false", f"start={transformer}", "data/tokenizer=characters", outputs=outputs
    )
    assert "its model knows other tokens (Bytes, " in said
    assert "rating" in refused(*data, "data.rating=stars", outputs=outputs)
    assert "data.lowest=1 data.highest=" in refused(*data, "data.highest=3", outputs=outputs)
    assert "members=0" in refused(*data, "model.members=0", outputs=outputs)
    assert "Use data=" in refused("model=reward", "data=python_docs", outputs=outputs)
    assert "model=reward" in refused(*data, "model=transformer", outputs=outputs)
    assert "not a reward model" in refused("model=vae", "metrics=[reward_accuracy]", outputs=outputs)
