"""Files of random weights in the place of what metrics would download."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import torchvision
from torch import Tensor, nn

# By the class that would download: its arguments instead.
GIVEN = {
    "LPIPS": lambda folder: {"net": "squeeze", "weights": str(backbone_file(folder, "squeeze"))},
    "ExactMatch": lambda folder: {"problems": str(folder / "problems.jsonl")},
    "PassAtK": lambda folder: {"problems": str(folder / "problems.jsonl")},
    "CLIPScore": lambda folder: {"model": str(clip_folder(folder / "clip"))},
    "CaptionRetrieval": lambda folder: {"model": str(clip_folder(folder / "clip"))},
}
MAKERS = {"alex": torchvision.models.alexnet, "vgg": torchvision.models.vgg16,
          "squeeze": torchvision.models.squeezenet1_1}  # fmt: skip


def without_downloads(node: Any, folder: Path) -> Any:
    """A config with stand-ins, made in ``folder`` if they are not there, for what would be downloaded, at any depth."""
    if not isinstance(node, Mapping):
        return node
    given = GIVEN.get(str(node.get("_target_")).rpartition(".")[2], lambda _: {})
    return {key: without_downloads(value, folder) for key, value in node.items()} | given(folder)


def backbone(net: Literal["alex", "vgg", "squeeze"], seed: int = 0) -> dict[str, Tensor]:
    """Of the shapes of torchvision's, without the classifier; activations neither die nor explode."""
    with torch.device("meta"):
        network = MAKERS[net](weights=None)
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, tensor in network.features.state_dict(prefix="features.").items():
        scale = (2 / nn.init._calculate_correct_fan(tensor, "fan_in")) ** 0.5 if tensor.dim() > 1 else 0.1
        state[name] = scale * torch.randn(tensor.shape, generator=generator)
    return state


def backbone_file(folder: Path, net: Literal["alex", "vgg", "squeeze"]) -> Path:
    path = folder / f"{net}.pth"
    if not path.exists():
        torch.save(backbone(net), path)
    return path


def clip_folder(folder: Path) -> Path:
    """A CLIP of a few thousand random weights, whose tokens are letters."""
    if (folder / "merges.txt").exists():
        return folder
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    start, end = len(tokens) - 2, len(tokens) - 1
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": len(tokens), "max_position_embeddings": 24, "bos_token_id": start,
            "eos_token_id": end, "pad_token_id": end}  # fmt: skip
    vision = {**sizes, "image_size": 24, "patch_size": 8}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12))
        for name, parameter in model.named_parameters():  # what all inputs share is small beside what tells them apart
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.1 if "position" in name else 0.5)
    model.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder
