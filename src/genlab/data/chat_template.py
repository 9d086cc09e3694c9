"""Chat templates: how messages of a conversation become one text."""

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genlab.data import template_inside
from genlab.data.conversation import Message
from genlab.data.tokenizer.base import END, Tokenizer
from genlab.data.tokenizer.pretrained import Pretrained
from genlab.errors import ConfigError, DataError
from genlab.files.paths import read_path
from genlab.files.regular_file import read_text

SECONDS = 5.0  # that a template may take for a conversation
_START_SECONDS = 60.0  # of its process, on a busy machine
_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_PLAIN = (
    "{% for message in messages %}{{ message.role | capitalize }}:\n{{ message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}\n\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:\n{% endif %}"
)
BUILT_IN = {"chatml": (_CHATML, ("<|im_start|>", "<|im_end|>")), "plain": (_PLAIN, ())}
_FILES = ("chat_template.jinja", "tokenizer_config.json")


@dataclass
class ChatTemplate:
    """A template in jinja2, by the variables of Hugging Face's: ``messages``, ``add_generation_prompt``, ``bos_token``,
    ``eos_token``. Those that come from files are rendered in a process of their own, which is ended after
    :data:`SECONDS`."""

    name: str  # for messages
    source: str
    variables: Mapping[str, str] = field(default_factory=dict)
    markers: tuple[str, ...] = ()  # special tokens that it needs
    _render: template_inside.Renderer | None = field(default=None, repr=False, compare=False)
    _process: "_Process | None" = field(default=None, repr=False, compare=False)

    @property
    def is_built_in(self) -> bool:
        """Rendered in this process, since it is known to end."""
        return self.source in {source for source, _ in BUILT_IN.values()}

    def rendered(self, messages: Sequence[Message], asked: Sequence[tuple[int, bool]]) -> list[str]:
        """The texts of the first ``count`` messages for each of ``asked``: (count, whether the beginning of an answer
        follows).

        Raises:
            DataError: the template fails, does what templates may not do, or takes too long.
        """
        if self.is_built_in:
            if self._render is None:
                self._render = template_inside.renderer(self.source, dict(self.variables))
            return [self._render(messages[:count], generation) for count, generation in asked]
        if self._process is None:
            self._process = _Process()
            self._answer({"source": self.source, "variables": dict(self.variables)}, _START_SECONDS)
        return self._answer({"messages": list(messages), "asked": list(asked)}, SECONDS)

    def _answer(self, question: Mapping[str, Any], seconds: float) -> list[str]:
        assert self._process is not None
        try:
            answer = self._process.answer(question, seconds)
        except TimeoutError as error:
            self._process = None
            raise DataError(
                f"the chat template of {self.name} takes more than {seconds:g} seconds for a conversation. "
                "Use data.template=chatml, or mend it."
            ) from error
        if not isinstance(answer, list):
            self._process.end()
            self._process = None
            raise DataError(f"the chat template of {self.name} cannot be used: {answer}. Or use data.template=chatml.")
        return answer

    def state(self) -> str:
        """As JSON, for :func:`of_state`."""
        return json.dumps({"name": self.name, "source": self.source, "variables": dict(self.variables)})


class _Process:
    """The process of an untrusted template."""

    def __init__(self) -> None:
        program = Path(template_inside.__file__).read_text(encoding="utf-8")
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ},
        )
        self._read = b""

    def answer(self, question: Mapping[str, Any], seconds: float) -> Any:
        """The texts, or why there are none. Raises TimeoutError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
            while b"\n" not in self._read:
                if not select.select([self._process.stdout], [], [], seconds)[0]:
                    self.end()
                    raise TimeoutError
                more = os.read(self._process.stdout.fileno(), 1 << 20)
                if not more:
                    return "it needs too much memory"
                self._read += more
        except BrokenPipeError:
            return "it needs too much memory"
        line, _, self._read = self._read.partition(b"\n")
        return json.loads(line)

    def end(self) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                assert pipe is not None
                pipe.close()
        self._process.wait()

    def __del__(self) -> None:
        if self._process.poll() is None:
            self.end()


def template_of(asked: str | None, tokenizer: Tokenizer) -> ChatTemplate:
    """The template ``chatml`` or ``plain``, that of a file, or, for None, that of the folder of a pretrained tokenizer;
    of a tokenizer that is learned here, ``chatml``.

    Raises ConfigError: there is none.
    """
    if asked is None and not isinstance(tokenizer, Pretrained):
        asked = "chatml"
    if asked in BUILT_IN:
        source, markers = BUILT_IN[asked]
        return ChatTemplate(asked, source, {"eos_token": _end_of(tokenizer)}, markers)
    if asked is not None:
        path = read_path(asked)
        if not path.is_file():
            raise ConfigError(
                f"data.template={asked} is neither a file nor one of {', '.join(BUILT_IN)}. Use data.template=chatml."
            )
        begin = (tokenizer.begin_token or "") if isinstance(tokenizer, Pretrained) else ""
        return ChatTemplate(str(path), _text(path), {"eos_token": _end_of(tokenizer), "bos_token": begin})
    assert isinstance(tokenizer, Pretrained)
    return _of_folder(tokenizer)


def _end_of(tokenizer: Tokenizer) -> str:
    return (tokenizer.end_token or "") if isinstance(tokenizer, Pretrained) else END


def _of_folder(tokenizer: Pretrained) -> ChatTemplate:
    found = {name: path for name in _FILES if (path := tokenizer.beside(name)) is not None}
    settings: Any = {}
    if _FILES[1] in found:
        try:
            settings = json.loads(_text(found[_FILES[1]]))
        except ValueError as error:
            raise DataError(f"{found[_FILES[1]]} is not JSON ({error}).") from error
    settings = settings if isinstance(settings, dict) else {}
    own = settings.get("chat_template")
    if isinstance(own, list):  # several by name
        own = next((one.get("template") for one in own if isinstance(one, dict) and one.get("name") == "default"), None)
    source = _text(found[_FILES[0]]) if _FILES[0] in found else own
    if not isinstance(source, str):
        raise ConfigError(
            f"{tokenizer.name} has no chat template: neither {_FILES[0]} nor chat_template in {_FILES[1]}. Use "
            "data.template=plain, or data.template=chatml if its tokenizer has <|im_start|> and <|im_end|>."
        )
    return ChatTemplate(tokenizer.name, source, {name: _content(settings.get(name)) for name in _VARIABLES})


_VARIABLES = ("bos_token", "eos_token", "unk_token", "pad_token")


def _content(token: Any) -> str:
    """Of a token that stands there as text or with its settings."""
    found = token.get("content") if isinstance(token, Mapping) else token
    return found if isinstance(found, str) else ""


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the chat template {path}.") from error


def of_state(state: str) -> ChatTemplate:
    """A template of a run. Raises DataError: ``state`` is none."""
    try:
        found = json.loads(state)
        name, source, variables = found["name"], found["source"], dict(found["variables"])
        assert isinstance(source, str)
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise DataError("this is not a chat template.") from error
    markers = next((markers for own, markers in BUILT_IN.values() if own == source), ())
    return ChatTemplate(str(name), source, variables, markers)
