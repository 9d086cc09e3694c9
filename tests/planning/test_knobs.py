"""Widths and depths are found in the config of every family, and none is named anywhere."""

from functools import cache

import pytest
from omegaconf import DictConfig

from genlab.config.tree import ConfigTree, missing
from genlab.planning.knobs import changed, find_knobs, plain, size_of
from genlab.run.assemble import build_data, check_config, trial_model
from tiny_run import NEEDS_CAPTIONS, NEEDS_TEXT, families

TREE = ConfigTree()


@cache
def config(*overrides: str) -> DictConfig:
    composed = TREE.compose(overrides)
    check_config(composed)
    build_data(composed)
    return composed


def knobs(*overrides: str) -> dict[str, str]:
    return {knob.path: knob.kind for knob in find_knobs(config(*overrides))}


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        (("model=transformer",), {"model.network.width": "width", "model.network.depth": "depth"}),
        (("model=diffusion",), {"model.network.channels": "width", "model.network.num_blocks": "depth"}),
        (("model=vae", "model/encoder=mlp", "model/decoder=mlp"),
         {"model.encoder.width": "width", "model.encoder.depth": "depth",
          "model.decoder.width": "width", "model.decoder.depth": "depth"}),
        (("model=gan",), {"model.generator.channels": "width", "model.discriminator.channels": "width"}),
        (("model=hierarchical_vae",), {"model.ladder.max_channels": "width"}),
    ],
    ids=lambda value: "-".join(value),
)  # fmt: skip
def test_they_are_what_they_are_called(choices: tuple[str, ...], expected: dict[str, str]) -> None:
    assert knobs(*choices) == expected


@pytest.mark.parametrize("family", families())
def test_every_family_has_a_wider_and_a_narrower_one(family: str) -> None:
    if "model.autoencoder" in missing(TREE.compose([f"model={family}"])):
        pytest.skip("needs a run")
    captioned = ["data=shapes"] if family in (*NEEDS_CAPTIONS, "captioner") else []
    of = config(f"model={family}", *captioned, *(["data=python_docs"] if family in NEEDS_TEXT else []))
    found = find_knobs(of)
    half, same, double = (size_of(of, found, width, 1) for width in (0.5, 1, 2))
    assert half is not None
    assert same is not None
    assert double is not None
    assert 1.5 * half.parameters < same.parameters < double.parameters / 1.5
    assert same.changes == {}
    built = trial_model(plain(changed(of, double.changes)))
    assert double.parameters == sum(p.numel() for p in built.parameters() if p.requires_grad)


def test_there_is_no_such_size() -> None:
    gan = config("model=gan")
    assert size_of(gan, find_knobs(gan), 1, 2) is None  # it has no depth
    assert size_of(gan, find_knobs(gan), 1 / 64, 1) is None  # half a channel
    assert size_of(gan, [], 2, 1) is None
