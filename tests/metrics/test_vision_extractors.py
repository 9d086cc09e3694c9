"""VGG-16, CLIP and DINOv2 against the networks of their libraries, with weights made here; and what is refused."""

import json
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch_fidelity.feature_extractor_clip import CLIPVisual, FeatureExtractorCLIP
from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16

from genlab.errors import ResourceError
from genlab.metrics.base import FeatureExtractor
from genlab.metrics.extractor.clip import CLIP
from genlab.metrics.extractor.dinov2 import DINOv2, prepared
from genlab.metrics.extractor.vgg import VGG16

transformers = pytest.importorskip("transformers")
IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 3, 20, 28), dtype=np.uint8))
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 14, "image_size": 224}


def features_of(extractor: FeatureExtractor, images: Tensor = IMAGES) -> Tensor:
    features = extractor.extract(images, frozenset({"features"}))["features"]
    assert features.dtype == torch.float32
    assert not features.requires_grad
    return features


def near(ours: Tensor, theirs: Tensor) -> None:
    assert theirs.std() > 0
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


def test_vgg_equals_torch_fidelitys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The large layers repeat one row, so that neither the file nor the test is."""
    torch.manual_seed(0)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in torchvision.models.vgg16().state_dict().items()}
    state = {}
    for name, shape in shapes.items():
        if name.endswith("bias"):
            state[name] = 0.1 * torch.randn(shape)
        elif name.startswith("features"):
            state[name] = nn.init.kaiming_normal_(torch.empty(shape), nonlinearity="relu")
        else:
            state[name] = (torch.randn(1, shape[1]) / shape[1] ** 0.5).expand(shape)
    torch.save(state, tmp_path / "vgg16.pth")
    ours = VGG16(weights=str(tmp_path / "vgg16.pth"))

    def unset() -> nn.Module:
        with torch.device("meta"):
            model = vgg16()
        return model.to_empty(device="cpu")

    vgg16 = torchvision.models.vgg16
    monkeypatch.setattr(torchvision.models, "vgg16", unset)  # 138 million random numbers saved
    theirs = FeatureExtractorVGG16("vgg16", ["fc2_relu"], str(tmp_path / "vgg16.pth"))
    features = features_of(ours, IMAGES[:2])
    assert features.shape == (2, 4096)
    near(features, theirs(IMAGES[:2])[0])


@pytest.fixture
def clip_state() -> dict[str, Tensor]:
    """Of a small CLIP: its sizes are read off its tensors."""
    torch.manual_seed(0)
    state = CLIPVisual(16, 64, 2, 64, 32).state_dict()
    text = {"text_projection": torch.zeros(8, 16), "transformer.resblocks.0.ln_1.weight": torch.zeros(8)}
    return {name: tensor.float() for name, tensor in state.items()} | text | {"logit_scale": torch.zeros(())}


def test_clip_equals_torch_fidelitys(clip_state, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(clip_state, tmp_path / "clip.pt")
    ours = CLIP(weights=str(tmp_path / "clip.pt"))
    features, gray = features_of(ours), IMAGES[:, :1]
    assert torch.equal(features_of(ours, gray), features_of(ours, gray.repeat(1, 3, 1, 1)))
    archive = types.SimpleNamespace(state_dict=lambda: dict(clip_state))
    monkeypatch.setattr(torch.jit, "load", lambda path, map_location: archive)
    theirs = FeatureExtractorCLIP("clip-vit-b-32", ["clip"], "any")
    near(features, theirs(IMAGES)[0])
    assert features.shape == (3, 16)


def test_clip_of_safetensors_is_the_same_and_another_networks_tensors_are_refused(clip_state, tmp_path: Path) -> None:
    torch.save(clip_state, tmp_path / "clip.pt")
    save_file({k: v.contiguous() for k, v in clip_state.items()}, tmp_path / "clip.safetensors")
    same = [CLIP(weights=str(tmp_path / name)).fingerprint() for name in ("clip.pt", "clip.safetensors")]
    assert same[0] == same[1]
    save_file({"layer": torch.zeros(1)}, tmp_path / "other.safetensors")
    for refused in (CLIP, VGG16):
        with pytest.raises(ResourceError, match="holds other weights than"):
            refused(weights=str(tmp_path / "other.safetensors"))


def dinov2(folder: Path, **changes) -> "transformers.Dinov2Model":
    torch.manual_seed(0)
    network = transformers.Dinov2Model(transformers.Dinov2Config(**SMALL | changes)).eval()
    nn.init.normal_(network.embeddings.position_embeddings)
    network.save_pretrained(folder)
    return network


def test_dinov2_is_the_class_token_of_transformers(tmp_path: Path) -> None:
    network = dinov2(tmp_path)
    extractor = DINOv2(weights=str(tmp_path))
    with torch.no_grad():
        near(features_of(extractor), network(prepared(IMAGES)).last_hidden_state[:, 0])
    assert extractor.name == "dinov232"
    assert torch.equal(
        features_of(extractor, IMAGES[:1, :1]), features_of(extractor, IMAGES[:1, :1].repeat(1, 3, 1, 1))
    )


@pytest.mark.parametrize(("width", "name"), [(384, "dinov2s384"), (768, "dinov2b768")])
def test_dinov2_is_named_by_its_size(width: int, name: str, tmp_path: Path) -> None:
    dinov2(tmp_path, hidden_size=width, num_hidden_layers=1, num_attention_heads=6)
    assert DINOv2(weights=str(tmp_path)).name == name


def test_dinov2_prepares_images_as_torchvision_does_pil_images() -> None:
    """Stein et al. (2023): Resize, ToTensor, Normalize."""
    transforms = torchvision.transforms
    theirs = transforms.Compose([
        transforms.Resize((224, 224), transforms.InterpolationMode.BICUBIC),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ])  # fmt: skip
    for size in ((20, 28), (300, 250)):
        image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
        ours = prepared(torch.from_numpy(image).permute(2, 0, 1)[None])
        torch.testing.assert_close(ours[0], theirs(Image.fromarray(image)), rtol=0, atol=1e-6)


def test_dinov2_positions_are_sampled_a_tenth_of_a_patch_denser(tmp_path: Path) -> None:
    """Row i of 16 lies at (i + 1/2) 37 / 16.1 - 1/2 of 37. A field that is linear in the row shows where, within 0.05,
    for that is how well bicubic interpolation does lines; 16 in place of 16.1 would be 0.2 off in the last row."""
    network = dinov2(tmp_path, image_size=518)
    rows = torch.arange(37.0).repeat_interleave(37)
    network.embeddings.position_embeddings.data = torch.cat([torch.zeros(1), rows])[None, :, None].repeat(1, 1, 32)
    network.save_pretrained(tmp_path)
    fitted = DINOv2(weights=str(tmp_path)).network.embeddings.position_embeddings
    assert fitted.shape == (1, 257, 32)
    inner = torch.arange(1, 15)
    expected = (inner + 0.5) * 37 / 16.1 - 0.5
    torch.testing.assert_close(fitted[0, 1:].view(16, 16, 32)[inner, 8, 0], expected, rtol=0, atol=0.06)


def test_dinov2_fingerprint_follows_weights_and_heads(tmp_path: Path) -> None:
    prints = set()
    for i, changes in enumerate([{}, {"num_attention_heads": 4}]):
        dinov2(tmp_path / str(i), **changes)
        prints.add(DINOv2(weights=str(tmp_path / str(i))).fingerprint())
    state = load_file(tmp_path / "0" / "model.safetensors")
    state["layernorm.bias"][0] += 1e-3
    save_file(state, tmp_path / "0" / "model.safetensors", metadata={"format": "pt"})
    prints.add(DINOv2(weights=str(tmp_path / "0")).fingerprint())
    assert len(prints) == 3


def test_dinov2_refuses_what_is_not_all_of_one(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"has no \*\.safetensors"):
        DINOv2(weights=str(tmp_path))
    dinov2(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["layernorm.bias"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ResourceError, match=r"lack layernorm\.bias"):
        DINOv2(weights=str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(ResourceError, match="model_type is vit, not dinov2"):
        DINOv2(weights=str(tmp_path))


def test_dinov2_without_network_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    expected = "the model facebook/dinov2-large is not here and the Hugging Face Hub cannot be reached"
    with pytest.raises(ResourceError, match=expected):
        DINOv2()
