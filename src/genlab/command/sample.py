"""What one does with a trained run: draw samples, for which its folder is enough."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig

from genlab.checkpoint import read
from genlab.config.tree import resolved
from genlab.data.tokenizer.base import StreamDecoder, Tokenizer, UnknownCharacterError, unknown_of
from genlab.errors import ConfigError
from genlab.files.atomic import prepare_file, prepare_folder, writing
from genlab.files.paths import read_path
from genlab.machine.matmul import quick_matmul
from genlab.machine.memory import enough_memory
from genlab.model.base import Condition, Generates, GenerativeModel
from genlab.redaction import for_terminal
from genlab.run.assemble import load_tokenizer
from genlab.run.load import load_run
from genlab.sampling.draw import asked_of, sample_images
from genlab.sampling.pictures import FOLDER as SAMPLES
from genlab.sampling.pictures import captions_of, write_captions, write_images
from genlab.sampling.texts import BETWEEN, write_texts
from genlab.seeding import RandomStream

_log = logging.getLogger(__name__)


def sample(
    config: DictConfig,
    run: Path,
    n: int | None,
    seed: int,
    label: Sequence[int | str] | None,
    prompt: str | None,
    batch_size: int,
    out: str | None,
) -> None:
    """Draw ``n`` samples of a run and write them where ``out`` says; a single text is printed while it is written."""
    is_text = config.spec.modality == "text"
    n = n or (1 if is_text else 64)
    model, _ = load_run(config, run)
    if not isinstance(model, GenerativeModel):
        raise ConfigError(f"{run} holds a {type(model).__name__}, which draws no samples. Name another run.")
    if is_text and label is not None:
        raise ConfigError(f"label={_typed(label)}: the model of {run} takes no labels.")
    typed = {} if is_text else asked_for(model, {"label": label, "prompt": None if prompt is None else [prompt]}, run)
    if out is None:
        digest = hashlib.sha256((prompt or "").encode("utf-8", "surrogateescape")).hexdigest()  # any bytes of a shell
        told = "" if prompt is None else f"-prompt={digest[:8]}"
        labels = model.conditions.label_of(typed) if label is not None else None
        told += "" if labels is None else f"-label={','.join(map(str, labels.tolist()))}"
        path = run / SAMPLES / f"seed={seed}-n={n}{told}{'.txt' if is_text else '.png'}"
        prepare_folder(path.parent, run)
        prepare_file(path)
    else:
        path = text_destination(out) if is_text else image_destination(out)
    fewer = f"batch_size={max(1, batch_size // 2)}"
    with quick_matmul(model.device.type == "cpu"), enough_memory("while samples were drawn", fewer):
        if is_text:
            tokenizer = load_tokenizer(resolved(config), read.newest(run), run)
            sample_text(model, tokenizer, n, seed, prompt, batch_size, path)
        else:
            sample_pictures(model, n, seed, typed, batch_size, path, config.spec.get("bits", 8))


def image_destination(out: str) -> Path:
    """Where images go: a .png, a .npz, or a folder, which is made. Nothing else, and no folder that holds something.

    Raises:
        ConfigError: ``out`` is none of these.
        StorageError: it cannot be written.
    """
    path = read_path(out)
    suffix = path.suffix.lower()
    if not (out.endswith("/") or path.is_dir()):
        if suffix in (".png", ".npz"):
            prepare_file(path)
            return path
        if suffix:
            raise ConfigError(
                f"out={out}: images go into a .png (a grid), a .npz (an array) or a folder (a PNG each). "
                f"Use out={path.with_suffix('.png')}, or out={out}/ for a folder."
            )
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        held = len(list(path.iterdir()))
    if held:
        raise ConfigError(
            f"out={out}: the folder holds {held} file{'s' * (held > 1)} already, which would lie among "
            "the samples. Name a new folder, or empty that one."
        )
    return path


def text_destination(out: str) -> Path:
    """Raises ConfigError if ``out`` is no .txt file, StorageError if it cannot be written."""
    path = read_path(out)
    if path.suffix.lower() != ".txt":
        raise ConfigError(f"out={out}: texts go into a .txt file. Use out={path.with_suffix('.txt')}")
    prepare_file(path)
    return path


def asked_for(
    model: GenerativeModel, typed: Mapping[str, Sequence[int | str] | None], run: Path
) -> dict[str, torch.Tensor]:
    """What is typed as ``label=`` or ``prompt=``, one or several values each, as rows of a condition by its key.

    Raises ConfigError for what the model of ``run`` cannot be asked for.
    """
    found = {}
    for option, values in typed.items():
        if values is None:
            continue
        key, kind = next(((k, v) for k, v in model.conditions.kinds.items() if v.option == option), (None, None))
        if key is None or kind is None:
            known = " or ".join(f"{kind.option}=..." for kind in model.conditions.kinds.values())
            what = "labels" if option == "label" else "prompt"
            raise ConfigError(
                f"{option}={_typed(values)}: the model of {run} takes no {what}."
                + (f" It can be asked for {known}" if known else "")
            )
        try:
            found[key] = torch.cat([kind.read(value) for value in values])
        except ValueError as error:
            raise ConfigError(f"{option}={_typed(values)}: {error}") from error
    return found


def _typed(values: Sequence[int | str]) -> str:
    return str(values[0]) if len(values) == 1 else f"[{','.join(map(str, values))}]"


def sample_pictures(
    model: GenerativeModel,
    n: int,
    seed: int,
    typed: Condition,
    batch_size: int,
    path: Path,
    bits: int = 8,
) -> None:
    """``n`` samples, of what is ``typed`` in turn if there is anything. In a grid of several labels, each has a column;
    what samples of captions were asked for stands beside a grid."""
    batches = [range(i, min(i + batch_size, n)) for i in range(0, n, batch_size)]
    images = torch.cat([sample_images(model, batch, seed, typed, bits) for batch in batches])
    square, labels = max(1, round(n**0.5)), model.conditions.label_of(typed) if typed else None
    asked = len(labels) if labels is not None else model.num_classes if model.conditions.is_label_alone else None
    in_columns = asked == 10 if labels is None else 1 < len(labels) <= 20
    write_images(images, path, columns=asked or square if in_columns else square)
    captions = model.conditions.words(asked_of(model, range(n), typed))
    if captions and path.suffix.lower() == ".png":
        write_captions(captions, captions_of(path))
        print(for_terminal(f"asked for: {captions_of(path)}"))
    print(for_terminal(f"{n} samples: {path}"))


def _encoded(tokenizer: Tokenizer, prompt: str) -> np.ndarray:
    """Raises ConfigError for a character that the run has no token for."""
    try:
        return tokenizer.encode(prompt)
    except UnknownCharacterError as error:
        raise ConfigError(f"prompt: {error} Leave it out of the prompt.") from error


def sample_text(
    model: GenerativeModel,
    tokenizer: Tokenizer,
    n: int,
    seed: int,
    prompt: str | None,
    batch_size: int,
    path: Path,
) -> None:
    """Texts that begin with ``prompt``, as one ``.txt`` file."""
    asked = None if not prompt else torch.from_numpy(_encoded(tokenizer, prompt)).to(model.device)
    unknown = unknown_of(tokenizer)
    if asked is not None and unknown is not None and (count := int((asked == unknown).sum())):
        _log.warning(
            f"{count} of the {len(asked)} characters of the prompt are not in the training text: the model "
            "sees the unknown token in their place."
        )
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
            end = BETWEEN.rstrip() if indices.stop < n else ""
            print(for_terminal(BETWEEN.join(texts[first:]) + end), flush=True)
    write_texts(texts, path)
    print(for_terminal(f"\n{n} sample{'s' * (n > 1)}: {path}"))


def _print_while_writing(
    model: Generates, tokenizer: Tokenizer, condition: Condition | None, stream: RandomStream, prompt: str
) -> str:
    decoder = StreamDecoder(tokenizer)
    pieces = [prompt]
    print(for_terminal(prompt), end="", flush=True)
    for token in model.generate(condition, stream):
        pieces.append(decoder.push(int(token)))
        print(for_terminal(pieces[-1]), end="", flush=True)
    pieces.append(decoder.finish())
    print(for_terminal(pieces[-1]))
    return "".join(pieces)
