"""Grids of models with latents."""

import math
from pathlib import Path

import torch
from PIL import Image

from genlab.cli import main
from genlab.data.digits import Digits
from genlab.sampling.latents import _partner, interpolations, reconstructions, slerp
from tiny_run import MLP, train
from told import classes


class Negative(torch.nn.Module):
    """Latents are images turned negative."""

    conditions = classes(None)
    device = torch.device("cpu")

    def encode(self, x, condition=None):  # type: ignore[no-untyped-def]
        return -x

    def decode(self, z, condition=None):  # type: ignore[no-untyped-def]
        return -z


def test_what_is_on_the_grids() -> None:
    table = Digits().table("val")
    pairs = reconstructions(Negative(), table, rows=2, columns=3).unflatten(0, (2, 2, 3))  # type: ignore[arg-type]
    assert torch.equal(pairs[:, 0], pairs[:, 1])
    assert torch.equal(pairs[1, 0, 1], torch.from_numpy(table.images[len(table) * 4 // 6]))
    rows = interpolations(Negative(), table, rows=3, columns=5).unflatten(0, (3, 5))  # type: ignore[arg-type]
    for row, start in zip(rows, (0, 166, 333), strict=True):
        partner = _partner(table, start)
        assert partner != start
        assert table.labels is not None
        assert table.labels[partner] == table.labels[start]
        for image, index in ((row[0], start), (row[-1], partner)):
            assert (image.int() - torch.from_numpy(table.images[index]).int()).abs().max() <= 1


def test_slerp_turns_at_an_even_pace() -> None:
    start, end = torch.tensor([[1.0, 0.0], [2.0, 0.0]]), torch.tensor([[0.0, 3.0], [1.0, 0.0]])
    angle = math.pi / 6
    expected = torch.tensor([[5 / 3 * math.cos(angle), 5 / 3 * math.sin(angle)], [5 / 3, 0.0]])
    torch.testing.assert_close(slerp(start, end, 1 / 3), expected)
    torch.testing.assert_close(slerp(start, end, 0.0), start)
    torch.testing.assert_close(slerp(start, end, 1.0), end)
    opposite = slerp(start, -start, 0.5)
    assert torch.isfinite(opposite).all()


def test_models_with_latents_get_more_grids(tmp_path: Path) -> None:
    run = train("model=vae", "model/encoder=mlp", "model/decoder=mlp", "callbacks.samples.times=1", "budget.value=8",
                "callbacks.samples.rows=4", "callbacks.samples.columns=3", outputs=tmp_path / "a")  # fmt: skip
    end = "examples=000000000008.png"
    assert {path.name for path in (run / "samples").iterdir()} == {
        end,
        f"reconstructions-{end}",
        f"interpolations-{end}",
    }
    with Image.open(run / "samples" / f"reconstructions-{end}") as picture:
        assert picture.size == ((3 * 17 - 1) * 3, (4 * 17 - 1) * 3)
    run = train(*MLP, "callbacks.samples.times=1", "budget.value=8", outputs=tmp_path / "b")
    assert [path.name for path in (run / "samples").iterdir()] == [end]


def test_pictures_of_metrics_are_written_at_the_end_and_by_evaluate(tmp_path: Path, capsys) -> None:
    run = train(
        *MLP,
        "metrics=[nearest_neighbor]",
        "metrics.nearest_neighbor.closest=7",
        "evaluation.num_samples=8",
        outputs=tmp_path,
    )
    (at_the_end,) = (run / "samples").glob("closest-*")
    assert at_the_end.name == "closest-examples=000000000104.png"
    with Image.open(at_the_end) as picture:
        assert picture.size == (6 * (33 * 4 + 10) + 10, 2 * (16 * 4 + 18 + 10) + 10)  # six pairs and one below
    capsys.readouterr()
    main(["evaluate", f"run={run}"])
    protocol, written = capsys.readouterr().out.splitlines()[-2:]
    path = run / "samples" / f"closest-{protocol.split()[1].removesuffix(':')}.png"
    assert written == f"picture: {path}"
    assert path.read_bytes() == at_the_end.read_bytes()
