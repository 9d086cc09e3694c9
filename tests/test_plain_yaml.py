"""YAML that a stranger may have written: what is no name or plain value is refused, and nothing is made of little."""

from pathlib import Path

import pytest
import yaml

from genlab.errors import CheckpointError
from genlab.files.plain_yaml import LONGEST_NUMBER, parse_yaml
from genlab.run.run_folder import read_config

PARTS = ("model", "data", "trainer", "budget", "evaluation", "metrics", "spec", "pretrained")
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 30))
REFUSED = {
    "a merge bomb": (MERGES, "merge key"),
    "a set": ("x: !!set {a}", "holds a set"),
    "a date": ("x: 2020-01-01", "holds a date"),
    "a null key": ("null: 1", "holds a NoneType"),
    "a number": ("x: " + "9" * (LONGEST_NUMBER + 1), "number of 401 characters"),
    "a base of 60": ("x: " + "1:" * 5000 + "1.5", "number of"),
}


@pytest.mark.parametrize(("text", "cause"), REFUSED.values(), ids=REFUSED)
def test_what_no_run_writes_is_refused(text: str, cause: str, tmp_path: Path) -> None:
    whole = yaml.safe_dump({part: {} for part in PARTS})
    (tmp_path / "config.yaml").write_text(whole)
    assert read_config(tmp_path)["model"] == {}
    (tmp_path / "config.yaml").write_text(whole + text)
    with pytest.raises(CheckpointError, match=cause) as refused:
        read_config(tmp_path)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 300


def test_plain_values_are_what_pyyaml_reads() -> None:
    text = "a: [1, 1.5, 1e3, .inf, 0x1f, 1_000, true, null, text, '2020-01-01']\n1: {b: -7}\n"
    assert parse_yaml(text) == yaml.safe_load(text)
