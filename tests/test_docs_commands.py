"""`make docs` runs what README and docs tell a reader to type: none is forgotten, and one that fails is told."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).parents[1]
SCRIPT = REPOSITORY / "scripts" / "run_docs.py"
PAGE = """Text.

    export WORD=told
    python -c "import sys;
    sys.exit($CODE)" # a comment
    for i in 1 2; do
      python -c "print('$WORD', $i)"
    done
    python train.py model=gan budget=seconds budget.value=300 \\
        outputs=table

```python
def main():

    print("no command")
```

```bash
python -c "3"
```

It says `python train.py --help` and `python` and `train.py`.
"""


@pytest.fixture(scope="module")
def docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_docs", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look
    spec.loader.exec_module(module)
    return module


def test_every_command_is_run_or_left_out_for_a_reason_and_no_rule_is_idle(docs: ModuleType) -> None:
    rules = docs.Rules.read()
    found = [command for of_page in docs.found_in(docs.all_pages(), rules).values() for command in of_page]
    left_out = {command.place for command in found if rules.why_not(command)}
    assert len(found) - len(left_out) > 30
    patterns = [*rules.no_commands, *(pattern for group in rules.left_out for pattern in group["commands"])]
    assert set(patterns) == rules.used, "a rule of docs/commands.yaml that no command fits any more"
    kept = {command.text.split(" #")[0].strip() for command in found if command.place not in left_out}
    assert "python train.py model=gan" in kept
    assert "python train.py debug=overfit" in kept


def test_commands_are_found_as_a_shell_reads_them(docs: ModuleType) -> None:
    found = list(docs.commands(PAGE, "page", docs.Rules([], [], {}, {}, [])))
    assert [command.line for command in found] == [4, 6, 9, 19, 22]
    assert found[0].before == ("export WORD=told",)
    assert found[1].text.startswith("for i")
    assert found[1].text.endswith("done")
    assert found[2].text.endswith("outputs=table")
    with pytest.raises(ValueError, match="page:3: 'rm -rf x' is no command"):
        list(docs.commands("Text.\n\n    rm -rf x\n", "page", docs.Rules([], [], {}, {}, [])))


def test_a_command_is_made_small_and_keeps_what_it_says(docs: ModuleType) -> None:
    rules = docs.Rules(
        [],
        [],
        {"cifar": "pictures"},
        {"examples": 64, "seconds": 2},
        [{"setting": "trainer=cpu"}, {"setting": "n=4", "unless": "vae"}],
    )
    assert rules.small("python train.py model=gan  # x").split() == (
        ["python", "train.py", "model=gan", "trainer=cpu", "n=4", "budget=examples", "budget.value=64", "#", "x"]
    )
    said = "python train.py budget=seconds \\\n    budget.value=300 root=cifar trainer=ddp"
    assert rules.small(said).split() == [
        "python",
        "train.py",
        "budget=seconds",
        "budget.value=2",
        "root=pictures",
        "trainer=ddp",
        "n=4",
    ]
    rules.replaced = {"run=x": "run=x budget.value=128"}
    assert rules.small("python train.py run=x") == "python train.py run=x budget.value=128"
    assert rules.small("python train.py model=vae budget.value=9").split()[-1] == "trainer=cpu"
    assert rules.small("python train.py run=outputs/x") == "python train.py run=outputs/x"
    told = rules.small("python train.py model=gan $c", 'c="budget=seconds budget.value=9 trainer=cpu"')
    assert told.split() == ["python", "train.py", "model=gan", "$c", "n=4"]


def test_a_command_that_fails_fails_the_whole_and_says_where(
    docs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Bare(docs.Place):
        def __init__(self, folder: Path, rules: object):
            self.folder, self.rules = tmp_path, rules
            self.environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}

    no_rules = docs.Rules([], [], {}, {"examples": 64}, [])
    failing, loop, *_ = docs.commands(PAGE.replace("$CODE", "3"), "page", no_rules)
    assert Bare(tmp_path, no_rules).run(loop)[1].endswith("told 1\ntold 2\n")
    monkeypatch.setattr(docs, "Place", Bare)
    monkeypatch.setattr(docs.Rules, "read", lambda: no_rules)
    monkeypatch.setattr(sys, "argv", ["run_docs.py", "page"])
    monkeypatch.setattr(docs, "found_in", lambda pages, rules: {"page": [loop]})
    docs.main()
    monkeypatch.setattr(docs, "found_in", lambda pages, rules: {"page": [failing, loop]})
    with pytest.raises(SystemExit, match=r"error: failed: page:4$"):
        docs.main()
    assert "FAILED" in (told := capsys.readouterr().out)
    assert "exit 3" in told
    assert "2 commands run, 0 left out, 1 failed" in told


def test_a_page_that_cannot_be_read_ends_with_an_error() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "docs/none.md"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "docs/none.md" in done.stderr
