"""The benchmark of speed: its statistics by closed forms, its checks, and that every row runs. No time is asserted."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from genlab.config.tree import resolved
from genlab.run.assemble import build_data, build_model
from tiny_run import compose_small, families

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    threads, modules = torch.get_num_threads(), set(sys.modules)
    yield
    torch.set_num_threads(threads)
    for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks" and name not in modules]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("count", "low", "high", "coverage"),
    [
        (1, 1, 1, 0.0),
        (2, 1, 2, 1 - 2 / 4),
        (5, 1, 5, 1 - 2 / 32),  # all have 15/16: no interval of five has 95 %
        (6, 1, 6, 1 - 2 / 64),
        (8, 1, 8, 1 - 2 / 256),  # from the second to the seventh: 1 - 2 (1 + 8) / 256 = 0.93
        (9, 2, 8, 1 - 2 * (1 + 9) / 512),
        (12, 3, 10, 1 - 2 * (1 + 12 + 66) / 4096),
    ],
)
def test_the_interval_of_a_median_has_the_coverage_of_the_binomial(
    count: int, low: int, high: int, coverage: float
) -> None:
    from benchmarks.timing import interval_of_median

    values = [float(i) for i in range(count, 0, -1)]
    assert interval_of_median(values) == (low, high, pytest.approx(coverage))


def test_what_slows_both_sides_of_a_pair_does_not_change_its_ratio() -> None:
    from benchmarks.timing import Ratio, paired_ratio

    ours = [1.0, 8.0, 2.0, 4.0, 1.0, 64.0]  # as on a busy machine
    theirs = [2 * seconds for seconds in ours]
    assert paired_ratio(theirs, ours) == Ratio(2.0, 2.0, 2.0, 1 - 2 / 64)
    ratio = paired_ratio([1.0, 2.0, 3.0], [1.0, 1.0, 1.0])
    assert (ratio.low, ratio.median, ratio.high) == (1.0, 2.0, 3.0)


def test_sides_take_turns_and_may_time_themselves() -> None:
    from benchmarks.timing import Spent, in_turns

    order: list[str] = []
    elsewhere = Spent(3.0, 4.0)
    measured = in_turns(
        {"a": lambda: order.append("a"), "b": lambda: (order.append("b"), elsewhere)[1]},
        rounds=3,
        seconds=0.0,
        slices=3,
    )
    assert "".join(order) == "ab" + "ab" + "abbaab" + "baabba" + "abbaab"  # first calls, how long one takes, rounds
    assert measured["b"] == [elsewhere] * 3
    assert all(spent.cpu >= 0 and spent.wall >= 0 for spent in measured["a"])


def test_a_row_is_of_time_for_equal_work() -> None:
    from benchmarks.command import text
    from benchmarks.row import alone, as_record, row, table
    from benchmarks.time_by_kind import KINDS, TimeByKind
    from benchmarks.timing import Measured, Spent

    measured = Measured({"genlab": [Spent(2.0, 4.0)] * 3, "peer": [Spent(9.0, 8.0)] * 3})
    measured.by_kind["genlab"] = TimeByKind({kind: 1.0 if kind in ("attention", "other") else 0.0 for kind in KINDS})
    made = row("unet", "work", measured, "peer", "checked", unit="s", aim=2.0, floor=1.0, work_of_peer=1.5)
    assert (made.theirs, made.ours, made.ratio.median, made.wall.median) == (6.0, 2.0, 3.0, pytest.approx(4 / 3))
    late = alone("startup", "start", [7.0, 6.0, 8.0], "s", at_most=5)
    head, first, below, second = table([made, late]).splitlines()
    assert below == "    attention 50%, other 50%"
    assert head.split() == ["work", "peer", "peer's", "genlab", "ratio", "[low,", "high]", "aim", "floor", "wall"]
    assert first.split() == [
        "work",
        "peer",
        "6",
        "s",
        "2",
        "s",
        "3.00",
        "[3.00,",
        "3.00]",
        "2",
        "met",
        "1",
        "s",
        "1.33",
    ]
    assert second.split() == ["start", "7", "s", "5", "s"]
    content = {"machine": "m", "rows": [as_record(made), as_record(late)], "skipped": []}
    kept = json.loads(text(dict(content)))
    assert kept["rows"][0]["ratio"] == {"median": 3.0, "low": 3.0, "high": 3.0, "coverage": 0.75}
    assert kept["rows"][0]["facts"] == {"profile": {"attention": 0.5, "other": 0.5}}
    assert kept["rows"][1]["ours"] == 7.0
    assert "ratio" not in kept["rows"][1]


def test_time_is_of_the_kind_of_the_operator_that_takes_it() -> None:
    """By hand, in nanoseconds: what an operator calls is not its own, but for those that have a kind as a whole."""
    from benchmarks.time_by_kind import Operator, by_kind

    engine = "autograd::engine::evaluate_function: "
    ran = [
        Operator("aten::linear", 0, 100, 1),
        Operator("aten::t", 10, 20, 1),
        Operator("aten::addmm", 30, 90, 1),
        Operator("_ChannelsLast", 100, 150, 1),  # Python, and operators that are all of its kind
        Operator("aten::mul", 110, 140, 1),
        Operator(f"{engine}_FusedBackward", 150, 190, 1),
        Operator("aten::copy_", 160, 170, 1),
        Operator("aten::relu", 105, 135, 2),  # of another thread, which nothing of the first calls
        Operator("Optimizer.step#Muon.step", 200, 300, 1),  # calls for the step's gradient
        Operator(f"{engine}AddBackward0", 210, 250, 1),
        Operator("aten::add", 220, 240, 1),
        Operator("Optimizer.step#Inner.step", 260, 290, 1),  # calls for nothing
        Operator("aten::mm", 265, 285, 1),
        Operator("never::heard_of", 300, 303, 1),
    ]
    found = by_kind(reversed(ran), seconds=500e-9, steps=1)
    nanoseconds = {kind: round(seconds * 1e9) for kind, seconds in found.seconds.items() if seconds}
    assert nanoseconds == {
        "products and convolutions": 100 - 10,
        "normalization": 50,
        "attention": 40,
        "elementwise and copies": 30 + 20,
        "optimizer": 30,
        "other": 3,
        "Python and dispatch": 10 + (100 - 40 - 30) + (40 - 20) + (500 - 323),
    }
    assert sum(nanoseconds.values()) == 500
    assert found.unknown == {"never::heard_of"}
    assert sum(found.shares().values()) == pytest.approx(1, abs=0.004)
    twice = by_kind(ran, seconds=1000e-9, steps=2)
    assert twice.seconds["attention"] == pytest.approx(20e-9)
    assert (found - twice).seconds["optimizer"] == pytest.approx(15e-9)
    assert found.lasting(2.0).seconds["attention"] == pytest.approx(2 * 40 / 500)


@pytest.mark.parametrize("family", sorted(set(families()) - {"latent_diffusion"}))
def test_every_operator_of_a_step_has_a_kind(family: str, tmp_path: Path) -> None:
    """Of a batch's losses and gradients. A latent diffusion's are those of a diffusion."""
    from benchmarks.time_by_kind import PRODUCTS, time_by_kind

    config = compose_small(f"model={family}", "data.batch_size=4", outputs=tmp_path)
    data = build_data(config)
    config.run_dir = config.run_id = ""
    model = build_model(resolved(config))
    model.configure_model()
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    data.trainer = SimpleNamespace(global_rank=0, world_size=1, strategy=strategy)
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)

    found = time_by_kind(lambda: sum(model.losses(batch).values()).backward())
    assert not found.unknown
    assert found.seconds[PRODUCTS] > 0


def test_operations_and_their_rate_are_those_of_products() -> None:
    from benchmarks.floor import matmul_rate, operations

    a, b = torch.ones(3, 5), torch.ones(5, 7)
    assert operations(lambda: a @ b) == 2 * 3 * 5 * 7
    with torch.inference_mode():
        assert operations(lambda: torch.nn.functional.linear(a, b.T)) == 2 * 3 * 5 * 7
        assert operations(lambda: torch.nn.functional.linear(a, b.T, torch.ones(7)).relu().softmax(-1)) == 2 * 3 * 5 * 7
        query = torch.ones(1, 2, 4, 8)
        attended = operations(lambda: torch.nn.functional.scaled_dot_product_attention(query, query, query))
    assert attended == 2 * (2 * 2 * 4 * 4 * 8)
    assert matmul_rate(torch.float32, size=64, repeats=1) > 0


def test_sides_that_do_not_agree_are_not_timed() -> None:
    from benchmarks.gpt_networks import agreement, gpt2_parts

    ours, theirs = (gpt2_parts(11, 1, 2, 8, 6) for _ in range(2))
    tokens = torch.arange(6)[None]
    theirs.load_state_dict(ours.state_dict())
    assert agreement(ours, theirs, tokens) == "same weights: logits equal"
    with torch.no_grad():
        theirs.blocks[0].attention.out.weight[0, 0] += 0.1
    with pytest.raises(AssertionError, match="logits are apart by"):
        agreement(ours, theirs, tokens)


def test_every_row_that_is_cheap_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the peers of packages and folders: each is left out with a sentence, and the rest is measured."""
    from benchmarks import command, gan, large_inputs, peers

    monkeypatch.setattr(large_inputs, "rows", lambda *_: ())  # processes of their own
    monkeypatch.setattr(gan, "KINDS", {"DCGAN": gan.KINDS["DCGAN"]})  # BigGAN takes seconds to begin
    real = peers.package

    def package(name: str) -> object:
        if name.partition(".")[0] in ("transformers", "diffusers", "timm"):
            raise peers.Missing(f"{name} is not installed: pip install 'genlab[peers]'")
        return real(name)

    monkeypatch.setattr(peers, "package", package)
    record = tmp_path / "record.json"
    parts = ["gpt", "dit", "unet", "gan", "vae", "decode", "fid", "data", "overhead", "gpu"]
    command.main(None, [*parts, "--quick", "--json", str(record)])
    kept = json.loads(record.read_text())
    assert {row["part"] for row in kept["rows"]} - {"overhead"} == {"gpt", "gan", "vae", "fid", "data", "gpu"}
    assert all(row["agreement"] and row["ratio"]["low"] <= row["ratio"]["high"] for row in kept["rows"])
    aims = [row for row in kept["rows"] if "aim" in row or "at_most" in row]
    profiled = {row["part"] for row in aims if "profile" in row.get("facts", {})}
    assert profiled - {"overhead"} == {"gpt", "gan", "vae", "data"}  # the overhead needs greenlet, of genlab[peers]
    assert all(row["facts"]["profile"].get("other", 0) < 0.02 for row in aims if "profile" in row.get("facts", {}))
    printed = capsys.readouterr().out
    assert all(row["work"] in printed for row in kept["rows"])
    for named in (
        "no path of nanogpt is given",
        "diffusers is not installed",
        "litgpt needs an environment",
        "only a GPU",
    ):
        assert named in printed
    assert {row["part"] for row in kept["skipped"]} >= {"gpt", "dit", "unet", "decode"}


def test_a_step_with_checkpointing_does_the_same_and_counts_the_same() -> None:
    from benchmarks.scale import TINY
    from benchmarks.scale_worker import measure

    (overrides, batch) = TINY["transformer 8x4, context 32"]
    plain, checkpointed = (measure([*overrides], batch, on, "cpu") for on in (False, True))
    assert plain["parameters"] == checkpointed["parameters"] > 0
    assert plain["flops"] == checkpointed["flops"] > 0
    assert plain.keys() == checkpointed.keys() == {"cpu", "wall", "memory", "parameters", "flops"}


def test_what_is_asked_for_must_be_there(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks import command

    for argv, told in (
        (["gtp"], "there is no part gtp. There are: gpt, "),
        (["gpt", "--rounds", "0"], "--rounds must be 1 or more"),
        (["gpt", "--peer", "gpt=/"], "'gpt' is none of nanogpt, dit"),
        (["gpt", "--peer", "dit=/nowhere"], "'/nowhere' is not a folder"),
    ):
        with pytest.raises(SystemExit) as left:
            command.main(None, argv)
        assert left.value.code == 2
        assert told in capsys.readouterr().err


def test_what_genlab_sets_for_its_process_is_not_the_peers() -> None:
    """The library that multiplies matrices, as a stand-in for all of it."""
    from benchmarks.beside import beside
    from benchmarks.timing import Measured, Spent

    def work(begin) -> Measured:
        torch.set_float32_matmul_precision("medium")
        (peer,) = begin({"weight": torch.ones(2)}).values()
        measured = Measured({"genlab": [torch.get_float32_matmul_precision()], "peer": [peer(), peer()]})
        measured.by_kind["genlab"] = "also what is kept beside the times"
        return measured

    def peers(weights: dict) -> dict:
        assert torch.equal(weights["weight"], torch.ones(2))
        precision = torch.get_float32_matmul_precision()
        return {"peer": lambda: Spent(1.0 if precision == "highest" else 0.0, 2.0)}

    measured = beside(work, peers, "cpu")
    assert measured == {"genlab": ["medium"], "peer": [Spent(1.0, 2.0)] * 2}
    assert measured.by_kind == {"genlab": "also what is kept beside the times"}
    assert torch.get_float32_matmul_precision() == "highest"
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        beside(lambda begin: 1 / 0, peers, "cpu")
