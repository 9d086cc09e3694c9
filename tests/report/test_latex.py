"""LaTeX that compiles, whatever runs are called."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from run_folders import BASELINES, add_evaluation, make_run

from genlab.report.comparison import compare
from genlab.report.latex import tex

HOSTILE = [r"\input{/etc/passwd}", "50% & more_", "$x^2$ #1 {", "~`'\"<>|", "[6pt]", "*", "naïve café", "日本 ✓ Ω ﬁ",
           "--", r"\\ \end{tabular}", "\x00\x1b", "ˆ´¨"]  # fmt: skip

KNOWN = """begin end toprule midrule bottomrule textbf downarrow uparrow rightarrow textbackslash textasciitilde
textasciicircum textless textgreater textbar textquotedbl textquotesingle textasciigrave ldots pm approx dag"""


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("genlab.report.plots.draw", lambda *_: [])
    network = {"_target_": "genlab.model.network.unet.UNet"}
    for i, name in enumerate(HOSTILE):
        run = make_run(tmp_path / str(i), {"fid_digits64_1k": i - 2.5}, model__network=network | {"note": name})
        add_evaluation(run, {"fid_digits64_1k": i - 2.5, "bits_per_dim_bound_val_50": 2.0 + i}, baselines=BASELINES)
    compare([str(tmp_path)], out=str(tmp_path / "c"))
    return tmp_path / "c" / "comparison.tex"


def test_what_stands_there(written: Path) -> None:
    text = written.read_text()
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2
    assert r"& fid $\downarrow$ &" in text
    assert r"& \textbf{$-$2.500} &" in text
    for part in re.findall(r"\\begin\{tabular\}\{l(r+)\}\n(.*?)\\end\{tabular\}", text, re.S):
        lines = [line for line in part[1].splitlines() if not line.startswith((r"\toprule", r"\midrule", r"\bottom"))]
        assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {len(part[0])}
        assert all(line.endswith(r" \\") for line in lines)
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    commands = set(re.findall(r"\\([A-Za-z]+)", body))
    assert commands <= set(KNOWN.split())
    assert all(" " <= c <= "ÿ" or c == "\n" for c in body)
    depth = 0
    for brace in re.findall(r"\\.|[{}]", body):
        depth += {"{": 1, "}": -1}.get(brace, 0)
        assert depth >= 0
    assert depth == 0


def test_text_as_it_is() -> None:
    assert tex("a_b & 50%") == r"a\_b \& 50\%"
    assert tex("é ﬁ Ω 日") == "é fi ? ?"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
def test_it_compiles(written: Path) -> None:
    head = "\n".join(rf"\usepackage{name}" for name in ("[T1]{fontenc}", "{textcomp}", "{booktabs}"))
    source = f"\\documentclass{{article}}\n{head}\n\\begin{{document}}\n\\input{{comparison.tex}}\n\\end{{document}}\n"
    (written.parent / "document.tex").write_text(source)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "document.tex"]
    done = subprocess.run(command, cwd=written.parent, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Missing character" not in (written.parent / "document.log").read_text(errors="replace")
