"""What one does with a trained run: draw samples, for which its folder is enough."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

from genlab import checkpoint
from genlab.assemble import build_model, load_tokenizer
from genlab.callbacks.samples import FOLDER as SAMPLES
from genlab.callbacks.samples import sample_images, save_grid
from genlab.callbacks.text_samples import BETWEEN, write_texts
from genlab.config import resolved
from genlab.data.tokenizer.base import StreamDecoder, Tokenizer
from genlab.errors import ConfigError
from genlab.matmul import quick_matmul
from genlab.memory import enough_memory
from genlab.model.base import Condition, Generates, GenerativeModel, Model
from genlab.model.classes import classes_of
from genlab.seeding import RandomStream


def load_run(config: DictConfig, run: Path) -> tuple[Model, str]:
    """A run's model with the weights of its newest checkpoint, on the fastest device, and which weights they are."""
    plain = resolved(config)
    model = build_model(plain)
    model.configure_model()
    last = checkpoint.newest(run)
    weights = checkpoint.load_for_sampling(model, last, run)
    model.progress = last.progress
    use_gpu = torch.cuda.is_available() and plain["trainer"].get("accelerator") != "cpu"
    return model.to("cuda" if use_gpu else "cpu").eval(), weights


def sample(
    config: DictConfig,
    run: Path,
    n: int | None,
    seed: int,
    label: int | None,
    prompt: str | None,
    batch_size: int,
    out: str | None,
) -> None:
    """Draw ``n`` samples of a run and write them where ``out`` says; a single text is printed while it is written."""
    model, _ = load_run(config, run)
    if not isinstance(model, GenerativeModel):
        raise ConfigError(f"{run} holds a {type(model).__name__}, which draws no samples. Name another run.")
    is_text = config.spec.modality == "text"
    if is_text and label is not None:
        raise ConfigError(f"label={label}: the model of {run} takes no labels.")
    if prompt is not None and not is_text:
        raise ConfigError(f"prompt={prompt}: the model of {run} makes images, which take no prompt.")
    fewer = f"batch_size={max(1, batch_size // 2)}"
    with quick_matmul(model.device.type == "cpu"), enough_memory("while samples were drawn", fewer):
        if is_text:
            tokenizer = load_tokenizer(resolved(config), checkpoint.newest(run), run)
            sample_text(model, tokenizer, run, n or 1, seed, prompt, batch_size, out)
        else:
            sample_pictures(model, run, n or 64, seed, label, batch_size, out)


def sample_pictures(
    model: GenerativeModel, run: Path, n: int, seed: int, label: int | None, batch_size: int, out: str | None
) -> None:
    classes = model.num_classes
    if label is not None:
        if classes is None:
            raise ConfigError(f"label={label}: the model of {run} takes no labels.")
        if not 0 <= label < classes:
            raise ConfigError(f"label={label} must be a class from 0 to {classes - 1}.")
        if label in model.empty_classes:
            known = classes_of(model)
            trained = ", ".join(map(str, known[:10])) + ", ..." * (len(known) > 10)
            raise ConfigError(
                f"label={label}: no image that the model of {run} was trained on has this label. Use one of {trained}."
            )
    batches = [range(i, min(i + batch_size, n)) for i in range(0, n, batch_size)]
    images = torch.cat([sample_images(model, batch, seed, label) for batch in batches])
    name = f"seed={seed}-n={n}" + ("" if label is None else f"-label={label}")
    path = run / SAMPLES / f"{name}.png" if out is None else Path(out)
    write_images(images, path, columns=10 if classes == 10 and label is None else max(1, round(n**0.5)))
    print(f"{n} samples: {path}")


def sample_text(
    model: GenerativeModel,
    tokenizer: Tokenizer,
    run: Path,
    n: int,
    seed: int,
    prompt: str | None,
    batch_size: int,
    out: str | None,
) -> None:
    """Texts that begin with ``prompt``, as one ``.txt`` file."""
    asked = None if not prompt else torch.from_numpy(tokenizer.encode(prompt)).to(model.device)
    told = "" if prompt is None else f"-prompt={hashlib.sha256(prompt.encode()).hexdigest()[:8]}"
    name = f"seed={seed}-n={n}{told}"
    path = run / SAMPLES / f"{name}.txt" if out is None else Path(out)
    if path.suffix != ".txt":
        raise ConfigError(f"out={out}: texts go into a .txt file.")
    texts = []
    for first in range(0, n, batch_size):
        indices = range(first, min(first + batch_size, n))
        stream = RandomStream.for_samples(seed, indices, model.device)
        condition = None if asked is None else {"prompt": asked.expand(len(indices), -1)}
        if n == 1 and isinstance(model, Generates):
            texts = [_print_while_writing(model, tokenizer, condition, stream, prompt or "")]
        else:
            tokens = model.sample(len(indices), condition, stream).cpu()
            texts += [(prompt or "") + tokenizer.decode(row) for row in tokens.tolist()]
            print(BETWEEN.join(texts[first:]) + (BETWEEN.rstrip() if indices.stop < n else ""), flush=True)
    write_texts(texts, path)
    print(f"\n{n} sample{'s' * (n > 1)}: {path}")


def _print_while_writing(
    model: Generates, tokenizer: Tokenizer, condition: Condition | None, stream: RandomStream, prompt: str
) -> str:
    decoder = StreamDecoder(tokenizer)
    pieces = [prompt]
    print(prompt, end="", flush=True)
    for token in model.generate(condition, stream):
        pieces.append(decoder.push(int(token)))
        print(pieces[-1], end="", flush=True)
    pieces.append(decoder.finish())
    print(pieces[-1])
    return "".join(pieces)


def write_images(images: Tensor, path: Path, columns: int) -> None:
    """uint8 images (N, C, H, W) as a grid (``.png``), an array ``images`` (N, H, W, C) (``.npz``), or one PNG each."""
    if path.suffix == ".png":
        save_grid(images, columns, path)
        return
    pixels = images.permute(0, 2, 3, 1).numpy()
    if path.suffix == ".npz":
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, images=pixels)
        return
    path.mkdir(parents=True, exist_ok=True)
    for i, picture in enumerate(pixels):
        Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(path / f"{i:06d}.png")
