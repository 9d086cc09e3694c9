"""Counts as people type them, in the config and in commands' own options."""

import pytest

from genlab.command.options import take_options, with_reference
from genlab.config.quantities import as_count, as_number
from genlab.config.tree import ConfigTree
from genlab.errors import ConfigError


@pytest.mark.parametrize(
    ("typed", "number"),
    [("64k", 64_000), ("2M", 2_000_000), ("1.5M", 1_500_000), ("4.35k", 4350), ("0.0005k", 0.5), ("3B", 3 * 10**9),
     ("many", "many"), ("64m", "64m"), (7, 7), (0.5, 0.5), (None, None)],
)  # fmt: skip
def test_units(typed: object, number: object) -> None:
    assert (as_number(typed), type(as_number(typed))) == (number, type(number))


def test_a_whole_number_is_one_however_it_is_written() -> None:
    assert [as_count(1e6), type(as_count(1e6)), as_count(1.5), as_count(True)] == [1_000_000, int, 1.5, True]


def test_what_is_stored_is_a_number() -> None:
    tree = ConfigTree()
    for typed, stored in (("1e6", 1_000_000), ("64k", 64_000), ("2M", 2_000_000), ("640", 640)):
        value = tree.compose([f"budget.value={typed}"]).budget.value
        assert (value, type(value)) == (stored, int)
    flops = tree.compose(["budget=flops", "budget.value=1e15"]).budget.value
    assert (flops, type(flops)) == (1e15, float)  # as it always was
    saved = {"budget": {"_target_": "genlab.budget.Examples", "value": 64}}
    assert tree.change(saved, [], ["budget.value=2k"]).budget.value == 2000


def test_options_of_commands() -> None:
    options, _ = take_options("sample", ["run=x", "n=1e3", "label=[1,cat]"])
    assert (options["n"], options["label"]) == (1000, [1, "cat"])
    assert take_options("sample", ["run=x", "label=3"])[0]["label"] == [3]
    assert take_options("plan", ["flops=2T"])[0]["flops"] == 2e12
    with pytest.raises(ConfigError, match="label must be a class, by its number or name"):
        take_options("sample", ["run=x", "label=[1.5]"])
    with pytest.raises(ConfigError, match="n must be a whole number >= 1, got '5q'"):
        take_options("sample", ["run=x", "n=5q"])


def test_keys_and_damaged_files_of_two_sets_of_images() -> None:
    options, rest = take_options("evaluate", ["images=a.npz", "reference=b", "data.image_key=pics", "data.on_bad=skip"])
    assert with_reference(options, rest) == ["data=image_folder"]
    assert (options["image_key"], options["on_bad"]) == ("pics", "skip")
    options, rest = take_options("evaluate", ["images=a.npz", "data=digits", "on_bad=skip"])
    assert (with_reference(options, rest), options["on_bad"]) == (["data=digits"], "skip")
    with pytest.raises(ConfigError, match="on_bad must be stop or skip"):
        take_options("evaluate", ["images=a", "on_bad=go"])
    options, rest = take_options("evaluate", ["run=a", "image_key=x"])
    with pytest.raises(ConfigError, match="image_key=x goes with images="):
        with_reference(options, rest)
