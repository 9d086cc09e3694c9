"""What a command line spans."""

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from genlab.config.overrides import parse
from genlab.errors import ConfigError
from genlab.sweep.search import distribution, typed
from genlab.sweep.space import Space, folder_of, read_space

GROUPS = {"model": ["gan", "transformer", "vae"]}


def space(*overrides: str) -> Space:
    return read_space(parse(overrides, sweep=True), GROUPS)


@pytest.mark.parametrize(
    ("override", "values"),
    [
        ("model=gan,vae", ("gan", "vae")),
        ("model=glob(*a*, exclude=v*)", ("gan", "transformer")),
        ("seed=range(1,4)", ("1", "2", "3")),
        ("metrics=[fid],[kid]", ("[fid]", "[kid]")),
        ("x=choice(a,b,a)", ("a", "b")),
        ("+x='a b',c", ("'a b'", "c")),
    ],
)
def test_values_are_what_would_be_typed(override: str, values: tuple[str, ...]) -> None:
    (axis,) = space(override).axes
    assert axis.values == values
    assert axis.name == override.lstrip("+").partition("=")[0]


def test_combinations_keep_the_order_typed() -> None:
    found = space("b=1,2", "fixed=x", "+a={y:1},{y:2}")
    assert [found.overrides(choice) for choice in found.combinations()] == [
        ["b=1", "fixed=x", "a={y:1}"], ["b=1", "fixed=x", "a={y:2}"],
        ["b=2", "fixed=x", "a={y:1}"], ["b=2", "fixed=x", "a={y:2}"],
    ]  # fmt: skip
    assert space("a=1").combinations() == [{}]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["lr=interval(1,2)"], "lr is an interval"),
        (["a=range(0,1000)", "b=range(0,1000)"], "1,000,000 combinations"),
    ],
)
def test_a_grid_has_an_end(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        space(*overrides).combinations()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["seed=0,1", "seed=2"], "seed is named twice"),
        (["lr=interval(2,1)"], "from a lower to a higher"),
        (["lr=tag(log, interval(0,1))"], "above 0"),
        (["model=glob(x*)"], "nothing matches"),
    ],
)
def test_what_spans_nothing_is_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        space(*overrides)


@pytest.mark.parametrize(
    ("override", "drawn_from"),
    [
        ("a=x,y", CategoricalDistribution(("x", "y"))),
        ("a=1,2", CategoricalDistribution(("1", "2"))),
        ("a=range(2,9,3)", IntDistribution(2, 8, step=3)),
        ("a=tag(log, range(1,100))", IntDistribution(1, 99, log=True)),
        ("a=interval(1,2)", FloatDistribution(1.0, 2.0)),
        ("a=tag(log, interval(1e-5,1e-3))", FloatDistribution(1e-5, 1e-3, log=True)),
        ("a=int(interval(1,9))", IntDistribution(1, 9)),
        ("a=range(0.5,2,0.5)", FloatDistribution(0.5, 1.5, step=0.5)),
    ],
)
def test_what_a_sampler_draws_from(override: str, drawn_from: object) -> None:
    (axis,) = space(override).axes
    assert distribution(axis) == drawn_from


def test_drawn_values_are_typed_exactly() -> None:
    drawn = typed({"lr": 1.2345678901234567e-05, "width": 8, "model": "gan"})
    assert drawn == {"lr": "1.2345678901234568e-05", "width": "8", "model": "gan"}
    assert parse([f"lr={drawn['lr']}"])[0].value() == 1.2345678901234567e-05


def test_a_folder_is_named_by_what_is_in_it() -> None:
    assert folder_of(["a=1", "b=2"]) == folder_of(["b=2", "a=1"])
    assert folder_of(["a=1", "b=2"]) != folder_of(["a=2", "b=1"])
    assert folder_of(["a=1"]) == folder_of(space("+a=1,2").overrides({"a": "1"}))
    assert len(folder_of([])) == 10
