"""Distances to training images, copies and authentic samples, against brute force; and the picture of them."""

import torch

from genlab.data.base import Split
from genlab.data.digits import Digits
from genlab.data.image import ImageDataModule, ImageTable
from genlab.evaluation.evaluation import Evaluation
from genlab.metrics import nearest_neighbor
from genlab.metrics.nearest_neighbor import NearestNeighbor, nearest_distance, neighbors
from genlab.metrics.pairs import pairs_picture
from genlab.sampling.examples import Examples


def random_images(n: int, seed: int) -> torch.Tensor:
    return torch.randint(256, (n, 12), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_equals_brute_force_and_finds_copies(monkeypatch) -> None:
    monkeypatch.setattr(nearest_neighbor, "_CHUNK", 7)  # of 30 and 50 images
    queries, images = random_images(30, 0), random_images(50, 1)
    queries[3] = images[40]
    all_distances = torch.cdist(queries.double(), images.double()) / 12**0.5 / 255
    expected, places = all_distances.topk(2, dim=1, largest=False)
    distances, found = neighbors(queries, images)
    torch.testing.assert_close(distances, expected.float())
    assert torch.equal(found, places)
    assert torch.equal(nearest_distance(queries, images), distances[:, 0])
    assert distances[3, 0] == 0.0
    assert distances[4, 0] > 0.0


def test_an_image_is_not_its_own_neighbor(monkeypatch) -> None:
    monkeypatch.setattr(nearest_neighbor, "_CHUNK", 7)
    images = random_images(50, 1)
    chosen = torch.tensor([0, 6, 7, 30, 49, 20, 21, 22, 48])
    distances = torch.cdist(images.double(), images.double()).fill_diagonal_(torch.inf) / 12**0.5 / 255
    found, places = neighbors(images[chosen], images, itself=chosen)
    torch.testing.assert_close(found[:, 0], distances[chosen].min(dim=1).values.float())
    assert torch.equal(places[:, 0], distances[chosen].argmin(dim=1))
    assert neighbors(images[:1], images[:1])[0].tolist() == [[0.0, torch.inf]]
    assert neighbors(images[:1], images[:1], itself=torch.tensor([0]))[0].isinf().all()


class Line(ImageDataModule):
    """Training pictures of one pixel, at 0, 10, 100 and 100."""

    def load(self, split: Split) -> ImageTable:
        return ImageTable(torch.tensor([0, 10, 100, 100], dtype=torch.uint8).view(4, 1, 1, 1).numpy())


def on_the_line(*samples: int) -> dict[str, float]:
    """Every sample twice: an evaluation draws two at least."""
    images = torch.tensor(samples, dtype=torch.uint8).repeat(2).view(-1, 1, 1, 1)
    found = Evaluation(None, {"nearest_neighbor": NearestNeighbor()}).score(Examples.of(image=images), Line()).values
    return {name.rsplit("_", 1)[0]: value for name, value in found.items()}


def test_copies_and_authentic_samples_on_a_line() -> None:
    assert on_the_line(0)["memorized"] == on_the_line(2)["memorized"] == 1.0  # 2 from 0, 8 from 10
    assert on_the_line(3)["memorized"] == 0.0  # 3 and 7
    assert on_the_line(100)["memorized"] == 1.0  # a training image that is there twice
    assert on_the_line(2, 3, 4, 5)["memorized"] == 0.25
    assert on_the_line(9, 21, 40, 0)["authpct"] == 50.0  # 1, 11, 30 and 0 from pictures that have a neighbor at 10
    assert on_the_line(99)["authpct"] == 100.0  # its neighbor is 0 from its twin


def test_authpct_equals_its_definition_on_digits() -> None:
    data = Digits()
    samples, train = (torch.from_numpy(data.table(split).images) for split in ("val", "train"))
    metric = NearestNeighbor(closest=3)
    metric.prepare(data)
    for start in (250, 0):  # in any order
        rows = slice(start, start + 250)
        metric.update({"image": samples[rows], "index": torch.arange(500)[rows]}, real=False)
    x, y = samples.flatten(1).double(), train.flatten(1).double()
    to_training = torch.cdist(x, y)
    among_training = torch.cdist(y, y).fill_diagonal_(torch.inf).min(dim=1).values
    nearest, which = to_training.min(dim=1)
    values = metric.compute()
    assert values["authpct"].item() == 100 * (nearest > among_training[which]).double().mean().item()
    assert 40 < values["authpct"] < 70
    assert values["memorized"] == 0.0
    order = nearest.argsort(stable=True)[:3]
    expected = pairs_picture(samples[order], train[which[order]], nearest[order] / 16 / 255)
    assert torch.equal(metric.pictures()["closest"], expected)


def test_a_picture_shows_pairs_side_by_side_above_their_distance() -> None:
    left, right = torch.full((7, 1, 8, 8), 10, dtype=torch.uint8), torch.full((7, 1, 8, 8), 90, dtype=torch.uint8)
    picture = pairs_picture(left, right, torch.linspace(0, 1, 7))
    tile, gap = (64, 17 * 8), 10  # pixels of a pair, enlarged eightfold, with a line between
    assert picture.dtype == torch.uint8
    assert picture.shape == (3, gap + 2 * (tile[0] + 18 + gap), gap + 6 * (tile[1] + gap))
    assert (picture[:, gap : gap + 64, gap : gap + 64] == 10).all()
    assert (picture[:, gap : gap + 64, gap + 64 : gap + 72] == 255).all()
    assert (picture[:, gap : gap + 64, gap + 72 : gap + 136] == 90).all()
    assert (picture[:, gap + 66 : gap + 82, gap : gap + 60] < 100).any()  # the number
    assert (picture[:, -100:, 200:] == 255).all()  # the second row holds one pair
