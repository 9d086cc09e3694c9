"""The contrastive loss of images and captions: its closed form, what is no negative, ranks, and that it learns."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.config.build import fits
from genlab.errors import ConfigError
from genlab.model.augment.diffaugment import DiffAugment
from genlab.model.base import Classifies, ComparesCaptions, GenerativeModel, HasFeatures
from genlab.model.contrastive_text import ContrastiveText, LogitScale, Same, symmetric_cross_entropy
from genlab.model.gathered import gathered
from genlab.model.network.text_encoder import TextEncoder
from genlab.model.network.vit import ViT
from genlab.model.schedule import Constant
from ranks import on_ranks

TOLD = {"label": {"size": None}, "caption": {"size": 7, "length": 3, "names": list("_abcdef"), "examples": []}}
SHAPE = (3, 4, 4)


def model(told: Any = TOLD, **options: Any) -> ContrastiveText:
    torch.manual_seed(0)
    made = ContrastiveText(
        partial(ViT, SHAPE, patch_size=2, width=16, depth=1, num_heads=2),
        partial(TextEncoder, width=16, depth=1, num_heads=2),
        DiffAugment(()), lambda p: torch.optim.SGD(p, lr=0.1), Constant(), SHAPE, told, **{"width": 8} | options,
    )  # fmt: skip
    made.configure_model()
    return made


def pairs(count: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    captions = (
        torch.stack([torch.arange(count) // 36 % 6, torch.arange(count) // 6 % 6, torch.arange(count) % 6], 1) + 1
    )
    return {"image": torch.rand(count, *SHAPE, generator=generator) * 2 - 1, "caption": captions}


def loss_of(made: ContrastiveText, batch: dict[str, Tensor]) -> Tensor:
    return made.losses(batch)["loss"]


# --- the loss ---------------------------------------------------------------------------------------------------------


def test_it_is_the_mean_of_two_cross_entropies() -> None:
    """As the paper's figure 3 has it, over all pairs of which none are equal."""
    made, batch = model(), pairs(6)
    images, texts = made.embed_images(batch["image"]), made.embed_captions(batch["caption"])
    torch.testing.assert_close(images.norm(dim=1), torch.ones(6))
    logits = images @ texts.T / 0.07
    labels = torch.arange(6)
    expected = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    torch.testing.assert_close(loss_of(made, batch), expected)


def test_of_n_pairs_that_look_alike_it_is_the_logarithm_of_n() -> None:
    loss, _ = symmetric_cross_entropy(torch.zeros(5, 5), torch.zeros(5, 5, dtype=torch.bool), torch.ones(5) > 0)
    assert float(loss) == pytest.approx(math.log(5))


@pytest.mark.parametrize("key", ["caption", "image"])
def test_equal_captions_and_equal_pictures_are_no_negatives(key: str) -> None:
    """The pair 3 has the caption, or the picture, of pair 0."""
    made, batch = model(), pairs(4)
    batch[key][3] = batch[key][0]
    logits = made.embed_images(batch["image"]) @ made.embed_captions(batch["caption"]).T / 0.07
    losses = []
    for table in (logits, logits.T):
        for i in range(4):
            others = [j for j in range(4) if {i, j} != {0, 3}]
            losses.append(table[i, others].logsumexp(0) - table[i, i])
    torch.testing.assert_close(loss_of(made, batch), torch.stack(losses).mean())


def test_a_pair_without_a_caption_teaches_nothing() -> None:
    made, batch = model(), pairs(4)
    batch["caption"][1] = 0
    rest = {key: rows[[0, 2, 3]] for key, rows in batch.items()}
    torch.testing.assert_close(loss_of(made, batch), loss_of(made, rest))
    batch["caption"][:] = 0
    loss = loss_of(made, batch)
    loss.backward()
    assert loss == 0
    assert all(p.grad is None or (p.grad == 0).all() for p in made.parameters())


def test_hashes_are_equal_for_equal_rows_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(0, 2, (3000, 3, 4, 4), generator=generator).float()  # many differ in few pixels
    captions = torch.cartesian_prod(*[torch.arange(7)] * 3)
    same = Same.of(levels, captions[torch.arange(3000) % 343])
    distinct = len(levels.flatten(1).unique(dim=0))
    assert len(same.picture.unique()) == distinct
    assert len(same.caption.unique()) == 343


def test_the_temperature_is_bounded_and_comes_back_from_its_bound() -> None:
    scale = LogitScale(0.07)
    assert float(scale().detach()) == pytest.approx(1 / 0.07)
    with torch.no_grad():
        scale.log_scale.fill_(9.0)
    assert float(scale().detach()) == pytest.approx(100)
    scale.clamp()
    scale().sum().backward()
    assert scale.log_scale.grad is not None
    assert float(scale.log_scale.grad) == pytest.approx(100)


# --- ranks ------------------------------------------------------------------------------------------------------------


def of_all(rank: int, world: int) -> dict[str, Tensor]:
    """One step's gradients on one of several ranks, averaged as DDP does."""
    made, batch = model(), pairs(8)
    batch["caption"][6] = batch["caption"][1]  # across ranks, too
    mine = {key: rows[rank::world] for key, rows in batch.items()}
    vectors = gathered(made.embed_images(mine["image"])), gathered(made.embed_captions(mine["caption"]))
    loss, _ = made.compared(*vectors, Same.of(mine["image"], mine["caption"]).gathered())
    loss.backward()
    found = {"loss": loss.detach()}
    for name, p in made.named_parameters():
        assert p.grad is not None, name
        if world > 1:
            torch.distributed.all_reduce(p.grad)
        found[name] = p.grad / world
    return found


def test_two_ranks_have_the_loss_and_the_gradients_of_the_global_batch(tmp_path: Path) -> None:
    alone = of_all(0, 1)
    assert max(float(slope.abs().max()) for slope in alone.values()) > 0.01
    for result in on_ranks(2, tmp_path, of_all, 2):
        assert result.keys() == alone.keys()
        for name, slope in result.items():
            torch.testing.assert_close(slope, alone[name], rtol=1e-4, atol=1e-6)


# --- learning ---------------------------------------------------------------------------------------------------------


def test_it_learns_which_caption_belongs_to_a_picture() -> None:
    """Pictures of one gray level, which their caption names: in the end all are matched."""
    made = model()
    levels = torch.linspace(-1, 1, 6)
    batch = {"image": levels[:, None, None, None].expand(6, *SHAPE).clone(),
             "caption": F.pad(torch.arange(1, 7)[:, None], (0, 2))}  # fmt: skip
    optimizer = torch.optim.Adam(made.parameters(), lr=2e-3)
    before = loss_of(made, batch)
    for _ in range(140):
        optimizer.zero_grad()
        loss_of(made, batch).backward()
        optimizer.step()
    after = made.losses(batch)
    assert after["loss"] < 0.3 < before
    assert after["recall_at_1"] == 1


# --- what it is -------------------------------------------------------------------------------------------------------


def test_it_is_a_judge_and_draws_nothing() -> None:
    made = model()
    assert isinstance(made, ComparesCaptions)
    assert fits(ContrastiveText, ComparesCaptions, partial=False)
    assert fits(ContrastiveText, HasFeatures, partial=False)
    assert not isinstance(made, Classifies | GenerativeModel)
    features = made.features(pairs(5)["image"])
    torch.testing.assert_close(features.square().mean(dim=1), torch.ones(5))


def test_all_weights_are_in_groups_and_gains_do_not_decay() -> None:
    groups: list[Any] = []
    made = model()
    made.make_optimizer = lambda given: groups.extend(given) or torch.optim.SGD(given, lr=0.1)  # type: ignore[func-returns-value]
    made.configure_optimizers()
    assert sum(len(group["params"]) for group in groups) == len(list(made.parameters()))
    still = [p for group in groups if group.get("weight_decay") == 0 for p in group["params"]]
    assert any(p is made.logit_scale.log_scale for p in still)
    assert any(isinstance(m, nn.LayerNorm) and any(p is m.weight for p in still) for m in made.modules())


@pytest.mark.parametrize(("options", "message"), [
    ({"told": {"label": {"size": 3}, "caption": {"size": None}}}, r"needs captions, and the data have none\. Use data"),
    ({"told": {}}, "needs captions"),
    ({"temperature": 0.001}, "temperature=0.001 must be 0.01 or more"),
    ({"width": 0}, "width=0 must be 1 or more"),
])  # fmt: skip
def test_bad_values(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(**options)


def test_a_single_pair_has_no_negatives() -> None:
    batch = pairs(1)
    with pytest.raises(ConfigError, match=r"needs two pairs or more in a batch\. Use a larger data\.batch_size"):
        model().training_step(batch, 0)
