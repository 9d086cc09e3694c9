"""``genlab chat``: a conversation with a trained run in the terminal."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import DictConfig

from genlab import started_as
from genlab.checkpoint import read
from genlab.config.tree import resolved
from genlab.data.chat_tokens import ChatTokens
from genlab.data.conversation import ANSWERS, Message
from genlab.data.tokenizer.base import StreamDecoder, Tokenizer
from genlab.errors import ConfigError, DataError
from genlab.machine.memory import enough_memory
from genlab.machine.quick_cpu import quick_cpu
from genlab.model.answering import check_answers
from genlab.model.base import Generates, GenerativeModel, in_eval_mode
from genlab.model.float32 import exact_float32
from genlab.redaction import for_terminal, one_line
from genlab.run.assemble import load_tokenizer
from genlab.run.cpu_choice import of_run
from genlab.run.load import load_run, load_template
from genlab.seeding import RandomStream

NEW = "/new"
_ASKS = "> "


@dataclass
class Talk:
    """A conversation with a model, which sees all of it that fits into its context."""

    model: Generates
    chat: ChatTokens
    seed: int
    system: str | None = None
    messages: list[Message] = field(default_factory=list)
    answered: int = 0  # answers so far, also in earlier conversations: each has random numbers of its own

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forget what was said."""
        self.messages = [] if self.system is None else [{"role": "system", "content": self.system}]

    def reply(self, text: str) -> Iterator[str]:
        """The answer to ``text``, piece by piece. What of it has been taken when the iterator is closed, or Ctrl-C is
        pressed, is kept. Raises DataError: the tokenizer has no token for a character, or the template refuses."""
        assert isinstance(self.model, GenerativeModel)
        asked = [*self.messages, {"role": "user", "content": text}]
        prompt = torch.from_numpy(self.chat.prompt(asked, "this conversation"))[None]
        stream = RandomStream.for_samples(self.seed, [self.answered], self.model.device)
        decoder, pieces = StreamDecoder(self.chat.tokenizer, int(prompt[0, -1])), [""]
        try:
            with exact_float32(self.model.device):
                for token in self.model.generate({"prompt": prompt.to(self.model.device)}, stream):
                    if int(token) == self.chat.end:
                        break
                    pieces.append(decoder.push(int(token)))
                    yield pieces[-1]
            pieces.append(decoder.finish())
            yield pieces[-1]
        finally:
            self.messages = [*asked, {"role": ANSWERS, "content": "".join(pieces)}]
            self.answered += 1

    def forgets(self, text: str) -> int:
        """Tokens of the conversation that the model does not see while it answers ``text``."""
        model: Any = self.model
        length = len(self.chat.prompt([*self.messages, {"role": "user", "content": text}], "this conversation"))
        return max(0, length - int(model.shape[0]))


def chat(config: DictConfig, run: Path, system: str | None, seed: int) -> None:
    """Answer the lines of standard input until it ends.

    Raises ConfigError: the run was not trained on conversations.
    """
    template = load_template(run)
    if template is None:
        raise ConfigError(
            f"{run} was not trained on conversations, and would continue what you type in place of answering. Use "
            f"{started_as.command('sample')} run={run}"
        )
    model, _ = load_run(config, run)
    assert isinstance(model, GenerativeModel), "only such a model is trained on conversations"
    check_answers(model, "chat")
    assert isinstance(model, Generates)
    tokenizer = load_tokenizer(resolved(config), read.newest(run), run)
    talk = Talk(model, ChatTokens(template, cast(Tokenizer, tokenizer)), seed, system)
    with (
        quick_cpu(model.device.type == "cpu", **of_run(config)),
        enough_memory("while an answer was drawn", "model.sample_length=100"),
        in_eval_mode(model),
    ):
        _converse(talk)


def _converse(talk: Talk) -> None:
    interactive = sys.stdin.isatty()
    if interactive:
        import readline  # noqa: F401  the line can be edited, and earlier ones found

        print(f"Type a line. {NEW} begins another conversation, Ctrl-C ends an answer, Ctrl-D the program.")
    for line in _lines(interactive):
        if line.strip() == NEW:
            talk.begin()
        elif line.strip():
            _answer(talk, line)


def _answer(talk: Talk, line: str) -> None:
    try:
        if forgotten := talk.forgets(line):
            print(
                f"warning: the model does not see the first {forgotten:,} tokens of this conversation any more. {NEW} "
                "begins another.",
                file=sys.stderr,
            )
        for piece in talk.reply(line):
            print(for_terminal(piece), end="", flush=True)
    except KeyboardInterrupt:  # what is there stays in the conversation
        pass
    except DataError as error:
        print(one_line(f"error: {error}"), file=sys.stderr, flush=True)
        return
    print(flush=True)


def _lines(interactive: bool) -> Iterator[str]:
    """What is typed, until the input ends."""
    while True:
        try:
            line = input(_ASKS) if interactive else sys.stdin.readline()
        except KeyboardInterrupt:
            if not interactive:
                raise
            print()
            continue
        except EOFError:
            print()
            return
        except UnicodeDecodeError:
            print("error: the line is not UTF-8. Type it again.", file=sys.stderr)
            continue
        if not interactive and not line:
            return
        yield line.rstrip("\r\n")
