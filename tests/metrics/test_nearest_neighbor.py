"""Distances to the nearest training image, against brute force."""

import torch

from genlab.metrics import nearest_neighbor
from genlab.metrics.nearest_neighbor import nearest_distance


def test_equals_brute_force_and_finds_copies(monkeypatch) -> None:
    monkeypatch.setattr(nearest_neighbor, "_CHUNK", 7)  # of 30 and 50 images
    generator = torch.Generator().manual_seed(0)
    queries, images = (torch.randint(256, (n, 12), generator=generator, dtype=torch.uint8) for n in (30, 50))
    queries[3] = images[40]
    expected = torch.cdist(queries.double(), images.double()).min(dim=1).values / 12**0.5 / 255
    distances = nearest_distance(queries, images)
    torch.testing.assert_close(distances, expected.float())
    assert distances[3] == 0.0
    assert distances[4] > 0.0
