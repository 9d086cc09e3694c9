"""Run the commands of README and docs/ at a small scale, and fail if one fails: `make docs`.

    python scripts/run_docs.py                     # all pages, two at a time
    python scripts/run_docs.py docs/sweeps.md      # one
    python scripts/run_docs.py --list              # what would be run, and what is left out for which reason

Commands are the indented and the fenced blocks of a page, and what stands in backticks and begins as a command does.
Those that need a network, a GPU or a service are named in docs/commands.yaml, with the reason; it also says what is
replaced to make the others small. A page has a copy of the repository's files, so that nothing is written into it, and
its commands run in their order: later ones see what earlier ones made. A run that a command names with `...` is the
newest that fits; where there is none, one is trained first.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
RULES = REPOSITORY / "docs" / "commands.yaml"
PAGES = ("README.md", "docs/*.md", "docs/reports/README.md", "docs/measured/README.md")
INLINE = re.compile(r"`((?:python|make|bash|pip install|wandb|genlab \w+ \S)[^`]* [^`]+)`")
STARTS = ("python ", "make ", "bash ", "genlab ", "pip ", "npm ", "wandb ", "for ")
SHELLS = ("", "bash", "sh", "console")  # what a block between fences is, if its commands are run
TIMEOUT = 1800  # seconds of one command


@dataclass(frozen=True)
class Command:
    page: str
    line: int
    text: str
    before: tuple[str, ...] = ()  # lines of its block that set variables

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass
class Rules:
    left_out: list[dict[str, Any]]
    no_commands: list[str]
    replaced: dict[str, str]
    budget: dict[str, Any]
    added: list[dict[str, str]]
    used: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, path: Path = RULES) -> "Rules":
        return cls(**yaml.safe_load(path.read_text(encoding="utf-8")))

    def why_not(self, command: Command) -> str | None:
        """The reason that a command is not run for."""
        for group in self.left_out:
            for pattern in group["commands"]:
                if re.search(pattern, re.sub(r"\s#.*", "", command.text)):
                    self.used.add(pattern)
                    return str(group["why"])
        return None

    def small(self, text: str, before: str = "") -> str:
        """``text`` as it is run."""
        text = re.sub(r"\\\n\s*", "", text)  # one line, however it is broken
        context = f"{before} {text}"
        currency = re.search(r"budget=(\w+)", context)
        value = self.budget[currency[1] if currency else "examples"]
        text = re.sub(r"budget\.value=\S+?(?=[\s\";]|$)", f"budget.value={value}", text)
        for pattern, replacement in self.replaced.items():
            text = re.sub(pattern, replacement, text)
        context = f"{before} {text}"
        return re.sub(r"(train\.py|genlab train)(?=\s|$)([^;\n#]*)",
                      lambda match: match[1] + self._with_added(match[2], context), text)  # fmt: skip

    def _with_added(self, overrides: str, context: str) -> str:
        if re.search(r"--help|(^|\s)run=", overrides):
            return overrides
        more = [one["setting"] for one in self.added
                if f"{one['setting'].partition('=')[0]}=" not in context
                and not ("unless" in one and re.search(one["unless"], context.replace("\n", " ")))]  # fmt: skip
        if "budget.value=" not in context and "debug=" not in overrides:
            currency = re.search(r"budget=(\w+)", overrides)
            more += [*([] if currency else ["budget=examples"]),
                     f"budget.value={self.budget[currency[1] if currency else 'examples']}"]  # fmt: skip
        return f"{overrides.rstrip()} {' '.join(more)} "


def commands(text: str, page: str, rules: Rules) -> Iterator[Command]:
    """The commands of a page, in their order. Raises ValueError for a block whose lines are no commands."""
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        if fence := re.match(r"```(\w*)$", lines[number]):
            end = lines.index("```", number + 1)
            if fence[1] in SHELLS:
                yield from _of_block(lines[number + 1 : end], number + 2, page, rules)
            number = end + 1
            continue
        if lines[number].startswith("    ") and (number == 0 or not lines[number - 1].strip()):
            end = number
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            yield from _of_block([line[4:] for line in lines[number:end]], number + 1, page, rules)
            number = end
            continue
        for match in INLINE.finditer(lines[number]):
            yield Command(page, number + 1, match[1])
        number += 1


def _of_block(block: list[str], first: int, page: str, rules: Rules) -> Iterator[Command]:
    before: list[str] = []
    skipping = False  # to the next empty line
    for line, text in _logical(block):
        if line == 0 or not block[line - 1].strip():
            fitting = [pattern for pattern in rules.no_commands if re.match(pattern, text)]
            rules.used.update(fitting)
            skipping = bool(fitting)
        if skipping or not text.strip() or text.startswith("#"):
            continue
        if re.match(r"export \w+=|\w+=[\"'$\w]", text):
            before.append(text)
        elif text.startswith(STARTS):
            yield Command(page, first + line, text, tuple(before))
        else:
            raise ValueError(f"{page}:{first + line}: {text!r} is no command that scripts/run_docs.py knows. Name the "
                             "block under no_commands in docs/commands.yaml if it is none.")  # fmt: skip


def _logical(block: list[str]) -> Iterator[tuple[int, str]]:
    """Lines as a shell reads them: joined where one ends in a backslash, inside quotes, or in a loop."""
    held, begun = "", 0
    for number, line in enumerate(block):
        begun = begun if held else number
        held = f"{held}\n{line}" if held else line
        code = re.sub(r"(^|\s)#.*", "", held, flags=re.M)
        loops = len(re.findall(r"\bdo\b", code)) - len(re.findall(r"\bdone\b", code))
        quotes = code.count('"') % 2 or code.count("'") % 2
        if line.endswith("\\") or quotes or loops > 0:
            continue
        yield begun, held
        held = ""
    if held:
        yield begun, held


class Place:
    """A copy of the repository's files, with pictures and texts that commands ask for."""

    def __init__(self, folder: Path, rules: Rules):
        self.folder, self.rules = folder, rules
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
        for name in listed.stdout.split("\0"):
            if name and (REPOSITORY / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(REPOSITORY / name, folder / name)
        _make_inputs(folder)
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.environment = os.environ | {"PATH": path, "GENLAB_CACHE": str(folder / "cache"), "WANDB_MODE": "offline",
                                         "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}  # fmt: skip

    def run(self, command: Command) -> tuple[int, str]:
        """-> exit code and what was printed."""
        before = [self.rules.small(line) for line in command.before]
        text = self.rules.small(command.text, " ".join(command.before))
        text = re.sub(r"(?<==)([\w./-]+?)/\.\.\.(?=\s|$)", lambda match: self.newest(match[1], text), text)
        if "outputs/swept" in text:
            self.sweep()
        return self.shell("\n".join(["set -e", *before, text]))

    def shell(self, script: str) -> tuple[int, str]:
        process = subprocess.Popen(["bash", "-c", script], cwd=self.folder, env=self.environment, text=True,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   start_new_session=True)  # fmt: skip
        try:
            said, _ = process.communicate(timeout=TIMEOUT)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)  # what the shell started, too
            said, _ = process.communicate()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            return 124, f"$ {script}\n{said}\nno end after {TIMEOUT} s"
        return process.returncode, f"$ {script}\n{said}"

    def newest(self, begin: str, text: str) -> str:
        """The newest run below ``begin``; where there is none, one that fits what the command is."""
        if begin == "outputs":
            begin = "outputs/transformer-shakespeare" if "prompt=" in text else "outputs/diffusion-digits"
        found = sorted((self.folder / begin).glob("**/summary.json"), key=lambda path: path.stat().st_mtime)
        if found:
            return str(found[-1].parent.relative_to(self.folder))
        model, _, data = Path(begin).name.partition("-")
        model = "vq_vae" if model == "vqvae" else model
        data = "text_file data.path=book.txt data.context=16" if data == "shakespeare" else data
        return self.prepared(f"{begin}/prepared", f"model={model} data={data}")

    def prepared(self, folder: str, overrides: str) -> str:
        code, said = self.shell(self.rules.small(f"python train.py {overrides} folder={folder}"))
        if code:
            raise RuntimeError(f"the run that the command names could not be made:\n{said}")
        return folder

    def sweep(self) -> None:
        if not (self.folder / "outputs" / "swept").exists():
            code, said = self.shell(self.rules.small("python train.py -m sweep.name=swept model=vae seed=0,1"))
            if code:
                raise RuntimeError(f"the sweep that the command names could not be made:\n{said}")


def _make_inputs(folder: Path) -> None:
    """Captioned pictures in folders of classes, an array of digits' shape, and a text."""
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    for number in range(160):
        path = folder / "pictures" / f"class{number % 4}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
        path.with_suffix(".txt").write_text("a dog on a beach")
    (folder / "shards").mkdir()
    with tarfile.open(folder / "shards" / "0.tar", "w") as shard:
        for path in sorted((folder / "pictures").rglob("*.*")):
            shard.add(path, path.relative_to(folder / "pictures").as_posix())
    np.savez(folder / "samples.npz", images=draw.integers(0, 256, (100, 1, 16, 16), dtype=np.uint8))
    (folder / "book.txt").write_text("It was a dark and stormy night; the rain fell in torrents. " * 400)
    asked = [(f"{i} + 1?", str(i + 1)) for i in range(100)]
    roles = ("user", "assistant")
    chats = [{"messages": [{"role": r, "content": c} for r, c in zip(roles, pair, strict=True)]} for pair in asked]
    judged = [{"prompt": q, "chosen": a, "rejected": f"not {a}"} for q, a in asked]
    questions = [{"question": q, "answer": a} for q, a in asked]
    for name, rows in (("chats", chats), ("questions", questions), ("judged", judged)):
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def found_in(pages: list[str], rules: Rules) -> dict[str, list[Command]]:
    """The commands of each page, none twice."""
    seen: set[tuple[str, ...]] = set()
    result: dict[str, list[Command]] = {}
    for page in pages:
        for command in commands((REPOSITORY / page).read_text(encoding="utf-8"), page, rules):
            key = (*command.before, re.sub(r"\s+#.*", "", command.text))
            if key not in seen:
                seen.add(key)
                result.setdefault(page, []).append(command)
    return result


def run_page(found: list[Command], rules: Rules) -> list[Command]:
    """-> the commands that failed."""
    failed = []
    with tempfile.TemporaryDirectory(prefix="genlab-docs-") as folder:
        place = Place(Path(folder), rules)
        for command in found:
            begun = time.monotonic()
            try:
                code, said = place.run(command)
            except RuntimeError as error:
                code, said = 1, str(error)
            told = f"{command.place}: {' '.join(command.text.split())[:110]}"
            print(f"{'ok    ' if code == 0 else 'FAILED'} {time.monotonic() - begun:4.0f} s  {told}", flush=True)
            if code:
                print("\n".join(f"    {line}" for line in f"exit {code}\n{said}".splitlines()[-25:]), flush=True)
                failed.append(command)
    return failed


def all_pages() -> list[str]:
    return [str(path.relative_to(REPOSITORY)) for pattern in PAGES for path in sorted(REPOSITORY.glob(pattern))]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pages", nargs="*", help="by default all")
    parser.add_argument("--list", action="store_true", help="run nothing")
    parser.add_argument("--jobs", type=int, default=2, help="pages at a time")
    arguments = parser.parse_args()
    rules = Rules.read()
    pages = arguments.pages or all_pages()
    try:
        found = found_in(pages, rules)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    runs = {page: [c for c in of_page if rules.why_not(c) is None] for page, of_page in found.items()}
    left = [(rules.why_not(c), c) for of_page in found.values() for c in of_page if rules.why_not(c) is not None]
    for why, command in sorted(left, key=lambda item: str(item[0])):
        print(f"left out ({why}): {command.place}: {' '.join(command.text.split())[:110]}")
    if arguments.list:
        for of_page in runs.values():
            for command in of_page:
                print(f"runs {command.place}: {rules.small(command.text, ' '.join(command.before))}")
        return
    order = sorted(runs, key=lambda page: -len(runs[page]))
    with ThreadPoolExecutor(arguments.jobs) as pool:
        failed = [command for failures in pool.map(lambda page: run_page(runs[page], rules), order)
                  for command in failures]  # fmt: skip
    print(f"{sum(map(len, runs.values()))} commands run, {len(left)} left out, {len(failed)} failed")
    if failed:
        sys.exit("error: failed: " + ", ".join(command.place for command in failed))


if __name__ == "__main__":
    main()
