"""CLIPScore with a tiny random CLIP, against transformers' own path from images and words to cosines."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from genlab.data.base import ConditionSpec
from genlab.data.digits import Digits
from genlab.errors import DataError, ResourceError
from genlab.evaluation.evaluation import Evaluation
from genlab.metrics.clip import CLIP
from genlab.metrics.clip_score import CLIPScore
from genlab.sampling.examples import Examples
from stand_ins import clip_folder

NAMES = ("cat", "dog", "snow leopard")
LABELS = torch.tensor([0, 1, 2, 2, 1, 0, 1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip_folder(tmp_path_factory.mktemp("clip"))


def pixels(*shape: int) -> Tensor:
    coarse = np.random.default_rng(0).integers(0, 256, (len(LABELS), shape[0], 5, 5), dtype=np.uint8)
    whole = torch.nn.functional.interpolate(torch.from_numpy(coarse).float(), shape[1:], mode="bilinear")
    return whole.round().to(torch.uint8)


def named(*names: str) -> Any:
    condition = {"label": ConditionSpec(len(names), names)} if names else {}
    return SimpleNamespace(spec=SimpleNamespace(condition=condition))


def measured(folder: Path, images: Tensor, labels: Tensor = LABELS, template: str = "a photo of a {}") -> float:
    metric = CLIPScore(str(folder), template)
    metric.prepare(named(*NAMES))
    metric.update({"image": images, "label": labels}, real=True)  # of no interest
    for rows in torch.arange(len(labels)).split(3):
        metric.update({"image": images[rows], "label": labels[rows]}, real=False)
    return float(metric.compute()["clip_score"])


@pytest.mark.parametrize("shape", [(3, 24, 24), (3, 40, 57), (1, 9, 12), (3, 300, 200)])
def test_pixels_equal_transformers(folder: Path, shape: tuple[int, ...]) -> None:
    """Whose resize is in bytes, with integer weights: to a level, or two, of 256."""
    from transformers import CLIPImageProcessor

    processor, clip, images = CLIPImageProcessor.from_pretrained(folder), CLIP(str(folder)), pixels(*shape)
    pictures = [Image.fromarray(image.permute(1, 2, 0).squeeze().numpy()).convert("RGB") for image in images]
    theirs = processor(images=pictures, return_tensors="pt")["pixel_values"]
    levels = (clip.prepared(images) - theirs).abs() * clip.std * 255
    assert levels.max() < 2.01
    assert levels.mean() < (0.01 if shape == (3, 24, 24) else 0.5)


def test_equals_transformers(folder: Path) -> None:
    """Its whole model, one example at a time."""
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

    model, tokenizer = CLIPModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    processor = CLIPImageProcessor.from_pretrained(folder)
    images, scores = pixels(3, 24, 24), []
    for image, label in zip(images, LABELS, strict=True):
        seen = processor(images=Image.fromarray(image.permute(1, 2, 0).numpy()), return_tensors="pt")["pixel_values"]
        tokens = tokenizer(f"a photo of a {NAMES[label]}", return_tensors="pt")
        with torch.no_grad():
            found = model(input_ids=tokens["input_ids"], pixel_values=seen)
        scores.append(max(0.0, 100 * float(torch.cosine_similarity(found.image_embeds, found.text_embeds))))
    assert sorted(scores)[1] == 0, "some cosines are negative"
    assert max(scores) > 1
    assert measured(folder, images) == pytest.approx(np.mean(scores), rel=1e-4)


def test_negative_cosines_count_as_nothing_and_prompts_matter(folder: Path) -> None:
    clip, images = CLIP(str(folder)), pixels(3, 24, 24)
    texts = clip.texts([f"a photo of a {name}" for name in NAMES], torch.device("cpu"))
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(3))
    cosines = clip.images(images) @ texts.T
    expected = 100 * cosines[torch.arange(7), LABELS].clamp(min=0).mean()
    assert measured(folder, images) == pytest.approx(float(expected), rel=1e-5)
    best = torch.where(LABELS >= 0, cosines.argmax(dim=1), 0)
    assert measured(folder, images, best) > measured(folder, images, cosines.argmin(dim=1)) + 1
    assert measured(folder, images, template="{}") != measured(folder, images)
    without = torch.cat([LABELS[:5], torch.tensor([-1, -1])])
    assert measured(folder, images, without) == pytest.approx(measured(folder, images[:5], LABELS[:5]), rel=1e-6)


def test_long_prompts_are_cut(folder: Path) -> None:
    clip = CLIP(str(folder))
    long = clip.texts(["a" * 500], torch.device("cpu"))
    torch.testing.assert_close(long, clip.texts(["a" * 400], torch.device("cpu")))


def test_in_an_evaluation(folder: Path) -> None:
    data = Digits()
    table = data.table("val")
    examples = Examples.of(image=torch.from_numpy(table.images[:40]), label=torch.from_numpy(table.labels[:40]))
    result = Evaluation(None, {"clip_score": CLIPScore(str(folder))}).score(examples, data)
    assert set(result.values) == {"clip_score_40"}
    assert result.protocol["metrics"]["clip_score"]["clip_fingerprint"] == CLIP(str(folder)).fingerprint


def test_refusals(folder: Path, tmp_path: Path) -> None:
    expected = (
        "the CLIP openai/nowhere is not here and cannot be downloaded (OfflineModeIsEnabled). Name a folder that "
        "holds it: metrics.clip_score.model=/path, or leave clip_score out"
    )
    with pytest.raises(ResourceError, match=re.escape(expected)):
        CLIPScore("openai/nowhere")
    with pytest.raises(ResourceError, match="neither a folder nor the name of a model"):
        CLIPScore("/no/such/folder")
    with pytest.raises(ResourceError, match=re.escape(f"{tmp_path} does not hold a CLIP that can be loaded")):
        CLIPScore(str(tmp_path))
    with pytest.raises(DataError, match="clip_score needs captions or names of classes and the data have none"):
        CLIPScore(str(folder)).prepare(named())
    with pytest.raises(ValueError, match=r"template must have one \{\}"):
        CLIPScore(str(folder), "a photo")
    with pytest.raises(DataError, match="samples with captions or labels"):
        measured(folder, pixels(3, 24, 24), torch.full_like(LABELS, -1))


def test_pickled_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    """A folder with the weights as a pickle alone."""
    for path in folder.iterdir():
        if path.name != "model.safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    torch.save(CLIP(str(folder)).network.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ResourceError, match=r"does not hold a CLIP.*model\.safetensors"):
        CLIPScore(str(tmp_path))
