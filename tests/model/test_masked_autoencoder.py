"""Masked autoencoders: against transformers' own with the same weights and noise, what the loss is of, and that they
learn."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from genlab.model.augment.views import IndependentViews, View, numbers_by_index
from genlab.model.base import FillsInImages, GenerativeModel, HasFeatures
from genlab.model.masked_autoencoder import MaskedAutoencoder
from genlab.model.network.masked_vit import MaskedPredictor, MaskedViT
from genlab.model.optimizer.groups import parameter_groups
from genlab.model.patches import each_view, to_images, to_patches
from genlab.model.schedule import Constant

SHAPE = (3, 8, 8)
NO_VIEWS = IndependentViews(View(scale=(1.0, 1.0), flip=0, jitter=0, gray=0, blur=0), count=1)
# By transformers 5.24.0: test_transformers_gives_what_was_recorded.
RECORDED: dict[str, Any] = {
    "loss": 1.0404857,
    "hidden": [[0, 2, 3, 5, 6, 7, 8, 10, 11, 13, 14, 15], [0, 2, 3, 4, 5, 7, 8, 10, 11, 12, 13, 15]],
    "predicted": [[0.4578644, -0.011054, -0.2216131], [0.3956651, 0.1323341, -0.3249573]],
    "class_token": [0.4465253, 0.1585123, 0.0165676, -0.5294517, -0.1518142, 0.219167],
}


def model(
    shape: tuple[int, ...] = SHAPE, patch_size: int = 2, encoder: Any = None, decoder: Any = None, **options: Any
) -> MaskedAutoencoder:
    torch.manual_seed(0)
    sizes = {"width": 16, "depth": 2, "num_heads": 4, "mlp_ratio": 2.0}
    made = MaskedAutoencoder(
        partial(MaskedViT, shape, patch_size=patch_size, **sizes | (encoder or {})),
        partial(MaskedPredictor, **sizes | {"width": 8, "num_heads": 2, "depth": 1} | (decoder or {})),
        NO_VIEWS, lambda p: torch.optim.AdamW(p, lr=1e-2), Constant(), shape, **options,
    )  # fmt: skip
    made.configure_model()
    return made


def batch(count: int = 4, shape: tuple[int, ...] = SHAPE) -> dict[str, Tensor]:
    images = torch.rand(count, *shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return {"image": images, "index": torch.arange(count) + 10}


# --- against transformers ---------------------------------------------------------------------------------------------


def formula() -> tuple[MaskedAutoencoder, Tensor, Tensor]:
    """A model whose weights a formula gives, the same with any version of torch, and whose positions are in the order
    of transformers; images (2, 3, 8, 8); noise (2, 16)."""
    made = model().eval()
    for number, parameter in enumerate(made.parameters()):
        values = 0.4 * torch.sin(0.37 * torch.arange(parameter.numel(), dtype=torch.float64) ** 1.3 + number)
        parameter.data = values.float().view_as(parameter)
    for network in (made.encoder, made.decoder):
        ours, theirs = network.positions.clone(), network.positions
        theirs[:, order_of_positions(theirs.shape[1])] = ours
    images = torch.sin(0.7 * torch.arange(2 * 192, dtype=torch.float64) ** 1.1).float().view(2, *SHAPE)
    noise = (0.61803398875 * torch.arange(1, 33, dtype=torch.float64) % 1).float().view(2, 16)
    return made, images, noise


def found(made: MaskedAutoencoder, images: Tensor, noise: Tensor) -> dict[str, Any]:
    seen, hidden = made.split(noise)
    predicted = made.predict(images, seen, hidden).unflatten(2, (3, 4)).mT.flatten(2)  # as there: (height, width, C)
    first = hidden[0].argsort()[:2]
    return {
        "loss": float(made.loss(images, seen, hidden)),
        "hidden": hidden.sort(dim=1).values.tolist(),
        "predicted": predicted[0, first, ::4].tolist(),
        "class_token": made.encoder.tokens(images, seen)[0, 0, :6].tolist(),
    }


def test_values_are_those_of_transformers() -> None:
    with torch.no_grad():
        assert_recorded(found(*formula()))


def assert_recorded(values: dict[str, Any]) -> None:
    assert values.keys() == RECORDED.keys()
    assert values["hidden"] == RECORDED["hidden"]
    for key in ("loss", "predicted", "class_token"):
        torch.testing.assert_close(torch.tensor(values[key]), torch.tensor(RECORDED[key]), rtol=0, atol=1e-5)


@pytest.mark.matrix  # takes seconds to import
def test_transformers_gives_what_was_recorded() -> None:
    """All outputs and the loss, of the model with our weights in its places."""
    transformers = pytest.importorskip("transformers")
    made, images, noise = formula()
    config = transformers.ViTMAEConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, layer_norm_eps=1e-6, image_size=8, patch_size=2, num_channels=3,
        decoder_num_attention_heads=2, decoder_hidden_size=8, decoder_num_hidden_layers=1,
        decoder_intermediate_size=16, mask_ratio=0.75, norm_pix_loss=True,
    )  # fmt: skip
    theirs = transformers.ViTMAEForPreTraining(config).eval()
    for part in (*theirs.modules(), *theirs.parameters()):
        part._is_hf_initialized = False  # or version 5 leaves all positions at 0
    theirs.vit.embeddings.initialize_weights()
    theirs.decoder.initialize_weights(16)
    state = theirs.state_dict()
    positions = {"vit.embeddings.position_embeddings": made.encoder, "decoder.decoder_pos_embed": made.decoder}
    for name, network in positions.items():
        assert not state[name][0, 0].any()  # of the class token
        torch.testing.assert_close(network.positions, state[name][0, 1:], rtol=0, atol=1e-6)
    renamed = by_names_of_transformers(made.state_dict())
    assert renamed.keys() == state.keys() - positions.keys()
    theirs.load_state_dict(renamed | {name: state[name] for name in positions})
    with torch.no_grad():
        output = theirs(images, noise=noise)
        latent = theirs.vit(images, noise=noise).last_hidden_state
        seen, hidden = made.split(noise)
        predicted = made.predict(images, seen, hidden)
    assert torch.equal(output.mask, torch.zeros(2, 16).scatter(1, hidden, 1.0))
    expected = output.logits.take_along_dim(hidden[:, :, None], dim=1)
    there = predicted.unflatten(2, (3, 4)).mT.flatten(2)
    torch.testing.assert_close(there, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(made.encoder.tokens(images, seen), latent, rtol=0, atol=1e-5)
    torch.testing.assert_close(made.loss(images, seen, hidden), output.loss, rtol=0, atol=1e-5)
    first = hidden[0].sort().values[:2]
    recorded = {"loss": float(output.loss), "hidden": hidden.sort(dim=1).values.tolist(),
                "predicted": output.logits[0, first, ::4].tolist(),
                "class_token": latent[0, 0, :6].tolist()}  # fmt: skip
    assert_recorded(recorded)


def order_of_positions(width: int) -> list[int]:
    """Where the numbers of ours are in theirs, which has sines and cosines of the column, then of the row; ours has
    cosines and sines of the row, then of the column."""
    quarter = width // 4
    sine_column, cosine_column, sine_row, cosine_row = (range(i * quarter, (i + 1) * quarter) for i in range(4))
    return [*cosine_row, *sine_row, *cosine_column, *sine_column]


def by_names_of_transformers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    names = {"encoder.class_token": "vit.embeddings.cls_token", "encoder.norm": "vit.layernorm",
             "encoder.patches": "vit.embeddings.patch_embeddings.projection", "encoder.blocks": "vit.layers",
             "decoder.stem": "decoder.decoder_embed", "decoder.blocks": "decoder.decoder_layers",
             "decoder.norm": "decoder.decoder_norm", "decoder.out": "decoder.decoder_pred",
             "attention.out": "attention.o_proj", "attention_norm": "layernorm_before",
             "feed_forward_norm": "layernorm_after", "feed_forward.expand": "mlp.fc1",
             "feed_forward.out": "mlp.fc2"}  # fmt: skip
    found = {}
    for name, value in weights.items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs) if ours in name else name
        if name.startswith("decoder.decoder_pred"):  # a patch there is (height, width, C), here (C, height, width)
            value = value.unflatten(0, (3, 4)).transpose(0, 1).flatten(0, 1)
        parts = value.chunk(3) if ".qkv." in name else (value,)
        found |= {name.replace("qkv", f"{kind}_proj"): part for kind, part in zip("qkv", parts, strict=False)}
    return found


# --- what is hidden ---------------------------------------------------------------------------------------------------


def test_a_patch_is_a_square_of_the_image() -> None:
    images = batch(2, (3, 4, 6))["image"]
    patches = to_patches(images, 2)
    assert patches.shape == (2, 6, 12)
    assert torch.equal(patches[1, 4], images[1, :, 2:4, 2:4].flatten())  # the second of the second row
    assert torch.equal(to_images(patches, 2, (2, 3)), images)


@pytest.mark.parametrize(("ratio", "seen"), [(0.75, 4), (0.5, 8), (0.9, 1), (0.1, 14), (0.9375, 1)])
def test_the_share_that_is_hidden_is_exact(ratio: float, seen: int) -> None:
    shown, hidden = model(mask_ratio=ratio).held_out_split(batch()["index"])
    assert shown.shape == (4, seen)
    assert torch.equal(torch.cat([shown, hidden], dim=1).sort(dim=1).values, torch.arange(16).expand(4, -1))


def test_a_share_is_not_rounded_by_its_representation() -> None:
    """10 * (1 - 0.9) is below 1."""
    assert model(mask_ratio=0.9).num_seen(10) == 1


def test_patches_are_hidden_equally_often() -> None:
    made = model()
    _, hidden = made.split(numbers_by_index(0, 0, torch.arange(4000))(16))
    share = hidden.flatten().bincount(minlength=16) / 4000
    assert (share - 0.75).abs().max() < 0.03  # 4 deviations


def test_what_is_hidden_depends_on_the_index_and_not_on_the_batch() -> None:
    made, index = model(), torch.tensor([5, 1000, 7])
    whole = made.held_out_split(index)
    for part, of_whole in zip(made.held_out_split(index[[2, 0]]), whole, strict=True):
        assert torch.equal(part, of_whole[[2, 0]])
    assert not torch.equal(whole[1][0], whole[1][1])
    assert not torch.equal(model(seed=1).held_out_split(index)[1], whole[1])


def test_several_views_are_as_many_images() -> None:
    """Each with numbers of its own."""
    images, index = batch()["image"], batch()["index"]
    twice = IndependentViews(NO_VIEWS.first, View(scale=(1.0, 1.0), flip=1, jitter=0, gray=0, blur=0), count=2)
    seen, uniform = each_view(twice, images, numbers_by_index(0, 64, index))
    assert torch.equal(seen, torch.cat([images, images.flip(3)]))
    numbers = uniform(5)
    assert numbers.shape == (8, 5)
    assert not (numbers[:4] == numbers[4:]).any()


def test_the_loss_is_of_hidden_patches_alone() -> None:
    """Changed pixels of a hidden patch change the target alone, those of a seen one change predictions alone."""
    made, images = model(normalize_pixels=False), batch(1)["image"]
    seen, hidden = made.split(torch.arange(16.0)[None] / 16)  # the first four patches are seen: the first two rows
    predicted = made.predict(images, seen, hidden)
    target = to_patches(images, 2)[:, 4:]
    torch.testing.assert_close(made.loss(images, seen, hidden), (predicted - target).square().mean())
    changed = images.clone()
    changed[:, :, 2:] += 1
    assert torch.equal(made.predict(changed, seen, hidden), predicted)
    torch.testing.assert_close(made.loss(changed, seen, hidden), (predicted - target - 1).square().mean())
    changed = images.clone()
    changed[:, :, :2] += 1
    others = made.predict(changed, seen, hidden)
    assert not torch.equal(others, predicted)
    torch.testing.assert_close(made.loss(changed, seen, hidden), (others - target).square().mean())


def test_targets_are_standardised_patch_by_patch() -> None:
    made = model()
    patches = to_patches(batch()["image"], 2)
    target = made.standardised(3 * patches + 1)
    torch.testing.assert_close(target, made.standardised(patches), rtol=0, atol=1e-4)
    torch.testing.assert_close(target.mean(dim=2), torch.zeros(4, 16), rtol=0, atol=1e-5)
    torch.testing.assert_close(target.var(dim=2), torch.ones(4, 16), rtol=0, atol=1e-4)
    assert not made.standardised(torch.ones(1, 1, 12)).any()  # all alike: no 0 / 0


def test_the_order_of_what_is_seen_does_not_matter() -> None:
    made, images = model(), batch()["image"]
    seen, hidden = made.held_out_split(torch.arange(4))
    torch.testing.assert_close(
        made.predict(images, seen.flip(1), hidden), made.predict(images, seen, hidden), rtol=0, atol=1e-5
    )


def test_all_weights_get_gradients() -> None:
    made = model()
    made.losses(batch())["loss"].backward()
    assert all(p.grad is not None and p.grad.any() for p in made.parameters())


def test_gains_biases_and_norms_are_not_decayed() -> None:
    made = model()
    groups = parameter_groups(made)
    kept = {id(p) for group in groups if group.get("weight_decay") == 0 for p in group["params"]}
    names = {name for name, p in made.named_parameters() if id(p) in kept}
    assert names == {name for name, _ in made.named_parameters() if name.endswith("bias") or "norm" in name}


# --- what it gives ----------------------------------------------------------------------------------------------------


def test_it_has_features_and_fills_in() -> None:
    made = model()
    assert isinstance(made, HasFeatures)
    assert isinstance(made, FillsInImages)
    assert not isinstance(made, GenerativeModel)


def test_features_are_the_mean_of_patches_or_the_class_token() -> None:
    images = batch()["image"]
    made = model()
    torch.testing.assert_close(made.features(images), made.encoder.tokens(images)[:, 1:].mean(dim=1))
    of_token = model(encoder={"features": "class_token"})
    assert torch.equal(of_token.features(images), of_token.encoder.tokens(images)[:, 0])
    without = model(encoder={"class_token": False})
    assert without.encoder.tokens(images).shape == (4, 16, 16)
    assert torch.isfinite(without.losses(batch())["loss"])


def test_all_patches_in_another_order_have_the_same_vectors() -> None:
    made, images = model(), batch()["image"]
    backwards = torch.arange(15, -1, -1).expand(4, -1)
    torch.testing.assert_close(
        made.encoder.tokens(images, backwards)[:, 1:].flip(1), made.encoder.tokens(images)[:, 1:], rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("normalize", [True, False])
def test_what_is_seen_stays_in_the_picture(normalize: bool) -> None:
    """And a perfect prediction gives the image."""
    made, images, index = model(normalize_pixels=normalize), batch()["image"], batch()["index"]
    seen, hidden = made.held_out_split(index)
    masked, filled = (to_patches(x, 2) for x in made.fill_in(images, index))
    patches = to_patches(images, 2)
    shown = seen[:, :, None].expand(-1, -1, 12)
    assert torch.equal(masked.gather(1, shown), patches.gather(1, shown))
    assert torch.equal(filled.gather(1, shown), patches.gather(1, shown))
    assert not masked.gather(1, hidden[:, :, None].expand(-1, -1, 12)).any()
    made.predict = lambda x, seen, hidden: made.standardised(patches.take_along_dim(hidden[:, :, None], 1))  # type: ignore[method-assign]
    torch.testing.assert_close(made.fill_in(images, index)[1], images)


def planes(count: int, seed: int) -> Tensor:
    """Images (count, 1, 8, 8) that are brighter to one side: a few patches tell the others."""
    slopes = torch.rand(2, count, 1, 1, 1, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    ramp = torch.linspace(-1, 1, 8)
    return slopes[0] * ramp[:, None] + slopes[1] * ramp


def test_it_learns_to_fill_in() -> None:
    """Where the mean of all images is twice as wrong."""
    train, held_out = planes(1500, 0), planes(300, 1)
    wrong, mean = trained_on(train, held_out, steps=130, width=32, lr=5e-3, mask_ratio=0.75)
    assert wrong < mean / 2


@pytest.mark.matrix  # a quarter of a minute
def test_it_learns_to_fill_in_digits() -> None:
    from sklearn.datasets import load_digits

    images = torch.from_numpy(load_digits().images).float()[:, None] / 8 - 1
    wrong, mean = trained_on(images[:1500], images[1500:], steps=1500, width=64, lr=2e-3, mask_ratio=0.5)
    assert wrong < 0.95 * mean


def trained_on(
    train: Tensor, held_out: Tensor, steps: int, width: int, lr: float, mask_ratio: float
) -> tuple[float, float]:
    """The squared error at hidden pixels of held-out images: the model's, and that of the mean of all images."""
    sizes = {"encoder": {"width": width, "depth": 1}, "decoder": {"width": width}}
    made = model((1, 8, 8), **sizes, normalize_pixels=False, mask_ratio=mask_ratio)  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(made.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(steps):
        index = torch.from_numpy(np.random.default_rng(step).integers(0, len(train), 32))
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 20) * (1 - step / steps)
        loss = made.loss(train[index], *made.split(numbers_by_index(0, step, index)(16)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        seen, hidden = made.held_out_split(torch.arange(len(held_out)))
        constant = to_patches(held_out - train.mean(dim=0), 2).take_along_dim(hidden[:, :, None], dim=1)
        return float(made.loss(held_out, seen, hidden)), float(constant.square().mean())


# --- what it refuses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.5, 75, float("nan")])
def test_a_share_outside_its_range_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match=r"use a value between 0 and 1, such as model\.mask_ratio=0\.75"):
        model(mask_ratio=ratio)


@pytest.mark.parametrize(("ratio", "hides"), [(0.01, 0), (0.99, 16)])
def test_some_patches_are_hidden_and_some_are_seen(ratio: float, hides: int) -> None:
    if hides:
        with pytest.raises(ValueError, match=r"of 16 patches hides 16 of them, and some must be hidden and some seen"):
            model(mask_ratio=ratio)
    else:
        assert model(mask_ratio=ratio).num_seen(16) == 15  # rounded down: one is hidden


def test_a_patch_of_one_number_is_not_standardised() -> None:
    with pytest.raises(ValueError, match=r"the single number of a patch .* model\.normalize_pixels=false"):
        model((1, 4, 4), patch_size=1)
    assert torch.isfinite(model((1, 4, 4), patch_size=1, normalize_pixels=False).losses(batch(4, (1, 4, 4)))["loss"])


@pytest.mark.parametrize(("options", "message"), [
    ({"patch_size": 3}, "patch_size=3 does not divide both sides of images of 8 x 8 pixels."),
    ({"encoder": {"width": 18}}, "width=18 must be a multiple of num_heads=4 and of 4."),
    ({"decoder": {"width": 6}}, "width=6 must be a multiple of num_heads=2 and of 4."),
    ({"encoder": {"class_token": False, "features": "class_token"}}, "features=class_token needs a class token."),
])  # fmt: skip
def test_networks_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(**options)
