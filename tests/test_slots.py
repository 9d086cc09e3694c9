"""Which classes fit which places: protocols by all their members, a library's classes by a list."""

import random
import sys
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from faults.slots import NAME, _own_classes, classes, listed, passing, slots
from genlab.command.options import OPTIONS
from genlab.config.build import check, fits, parameters
from genlab.errors import ConfigError
from genlab.metrics.base import FeatureExtractor
from genlab.model.base import HasTokens
from genlab.model.objective.ddpm import NoiseSchedule
from genlab.trust.strangers import CONSENT


class Named(Protocol):
    name: str

    @property
    def size(self) -> int: ...


class Draws(Named, Protocol):
    kind: ClassVar[str] = "plain"  # a default: need not be there

    def draw(self, count: int) -> list[int]: ...


class Nothing(Protocol): ...


class Whole:
    size = 3

    def __init__(self, name: str):
        self.name = name

    def draw(self, count: int) -> list[int]:
        return [count]


class Annotated(Whole):
    name: str

    def __init__(self) -> None: ...


class Registered(nn.Module):
    size = 3

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("name", torch.zeros(1))


class Nameless:
    size = 3

    def draw(self, count: int) -> list[int]:
        return [count]


class Sizeless:
    def __init__(self) -> None:
        self.name = "size"

    def draw(self, count: int) -> list[int]:
        return [count]


class Drawless(Whole):
    draw = None  # type: ignore[assignment]


class OtherWords(Whole):
    def draw(self, number: int) -> list[int]:  # type: ignore[override]
        return [number]


@pytest.mark.parametrize(("kind", "named", "draws"), [
    (Whole, True, True), (Annotated, True, True), (Registered, True, False), (Nameless, False, False),
    (Sizeless, False, False), (Drawless, True, False), (OtherWords, True, False), (int, False, False),
])  # fmt: skip
def test_all_members_of_a_protocol_count(kind: type, named: bool, draws: bool) -> None:
    assert fits(kind, Named, partial=False) is named
    assert fits(kind, Draws, partial=False) is draws
    assert not fits(kind, Nothing, partial=False)
    assert not fits(kind, Named, partial=True)
    assert fits(kind, Callable[..., Draws], partial=True) is draws


@pytest.mark.parametrize("protocol", [NoiseSchedule, HasTokens, FeatureExtractor])
@pytest.mark.parametrize("kind", [nn.Linear, pl.Trainer, Whole, dict, nn.ParameterDict])
def test_protocols_of_attributes_do_not_take_everything(protocol: Any, kind: type) -> None:
    assert not fits(kind, protocol, partial=False)


@pytest.mark.parametrize("slot", [Callable, Callable[..., Any], Any, object, type, None])
def test_a_place_without_a_type_takes_no_class(slot: Any) -> None:
    for partial in (True, False):
        assert not fits(nn.LayerNorm, slot, partial)


def test_a_class_of_the_users_own_fits_where_a_librarys_is_asked_for() -> None:
    assert fits(Registered, nn.Module, partial=False)
    check({"_target_": f"{__name__}.Registered", "_partial_": True}, Callable[[int], nn.Module], "x")
    with pytest.raises(
        ConfigError, match=r"is a Module, but not one that a config may create.*docs/security\.md"
    ) as error:
        check({"_target_": "torch.nn.Linear", "_partial_": True}, Callable[[int], nn.Module], "x")
    assert "\n" not in str(error.value)


# --- every class of the libraries -------------------------------------------------------------------------------------


def test_the_list_is_what_fits() -> None:
    """A sample of what tests/faults/slots.py does with all classes, and all that are listed."""
    known, places = listed(), slots()
    modules = [name for name in sorted(sys.modules) if NAME.fullmatch(name) and _is_of_a_library(name)]
    kinds = classes([*random.Random(0).sample(modules, min(300, len(modules))), "torch.nn", "torch.optim"])
    sample = random.Random(0).sample(sorted(kinds), 200)
    named = {line.partition(" <- ")[2] for line in known} & set(kinds)
    assert len(named) > 40
    found = passing({name: kinds[name] for name in {*sample, *named}}, places)
    assert [line for line in found if line not in known] == []
    assert {line.partition(" <- ")[2] for line in found} >= named
    assert len(known) < 250


def _is_of_a_library(name: str) -> bool:
    return name.partition(".")[0] in ("torch", "torchvision", "torchmetrics", "pytorch_lightning", "lightning_fabric",
                                      "hydra", "omegaconf", "numpy", "PIL")  # fmt: skip


# --- what grants something --------------------------------------------------------------------------------------------

SETTINGS = {"affine", "attends_to_words", "balanced", "balanced_classes", "baseline", "batch_norm", "bias", "blurred",
            "causal", "class_token", "compile", "convolutions", "count", "doubles", "download", "downsample", "flip",
            "folders_are_classes", "fresh", "has_segments", "held_out", "interim_bfloat16", "is_finest", "is_first",
            "is_last", "is_read_alone",
            "last_norm", "layout", "lazy_steps", "learn_cut", "likelihood_weighting", "log_model", "needs_reference",
            "noise",
            "nonnegative", "normalize_pixels", "own_key_norm", "packing", "qk_norm", "qkv_bias", "rslora",
            "sample_pixels", "scaled", "spectral_norm", "tags", "tf32", "tie", "tied", "tokenized", "unknown",
            "whiten", "whole", "zero_init"}  # fmt: skip
GRANTING_OPTIONS = {"allow_changes"}  # of a command: typed with each
SHOWING_OPTIONS = {"allow_unequal", "baselines", "colorize", "plots", "rate", "transfer", "wandb"}


def test_every_argument_that_grants_something_is_known() -> None:
    """One that is neither a setting nor consent has to be put into a list, here and in genlab.trust.strangers."""
    switches = {
        name
        for kind in _own_classes()
        for name, annotation in parameters(kind).items()
        if annotation is bool or bool in getattr(annotation, "__args__", ())
    }
    assert switches - SETTINGS == set(CONSENT)
    options = {
        name
        for options in OPTIONS.values()
        for name, (default, _) in options.items()
        if default is False or default is True
    }
    assert options == GRANTING_OPTIONS | SHOWING_OPTIONS
    names = {name for kind in _own_classes() for name in parameters(kind)} | {n for o in OPTIONS.values() for n in o}
    telling = ("allow", "trust", "unsafe", "consent", "permit", "insecure", "exec", "remote_code", "accept", "confirm")
    assert {name for name in names if any(word in name for word in telling)} - {"allowed"} == {
        *CONSENT, *GRANTING_OPTIONS, "allow_unequal"}  # fmt: skip
