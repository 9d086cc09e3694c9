"""The page without a browser: what is in it, that it asks nobody, that it stays small, and that text stays text."""

import base64
import csv
import hashlib
import itertools
import json
import math
import random
import re
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hostile_names import NAMES, make_hostile
from PIL import Image
from run_folders import make_run, write
from synthetic_runs import make_sweep

from genlab.report.comparison import compare
from genlab.report.logged import read_logged
from genlab.report.page.curves import TOLERANCE, Curves, curves_of, pieces, points_each, thinned
from genlab.report.page.pictures import pictures
from genlab.report.page.write import as_script_data

PACKAGE = files("genlab.report.page")


class Page(HTMLParser):
    """Elements with their attributes, the text outside of scripts and styles, and what is in those."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.inside: dict[str, list[str]] = {"script": [], "style": []}
        self.cells: list[list[str]] = []  # of all tables, by row
        self.headers: list[str] = []  # texts of the cells among them that are headers
        self._open, self._in_cell = "", False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in self.inside:
            self._open = tag
            self.inside[tag].append("")
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag == self._open:
            self._open = ""
        if tag in ("td", "th"):
            self._in_cell = False
        if tag == "th":
            self.headers.append(self.cells[-1][-1])

    def handle_data(self, data: str) -> None:
        if self._open:
            self.inside[self._open][-1] += data
            return
        self.text += data
        if self._in_cell:
            self.cells[-1][-1] += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.inside["script"][0])

    @property
    def frames(self) -> list[list[dict[str, Any]]]:
        return json.loads(self.inside["script"][1])


def page_of(runs: Path, **options: Any) -> Page:
    out = runs.parent / "page-of"
    compare([str(runs)], out=str(out), plots=False, **options)
    return Page((out / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return page_of(make_sweep(tmp_path_factory.mktemp("runs") / "sweep", 16))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Page:
    folder = tmp_path_factory.mktemp("hostile") / "runs"
    make_hostile(folder)
    return page_of(folder, allow_unequal=True)


def test_it_asks_nobody(page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form", "video", "audio", "source")
        assert not {"src", "srcset", "action", "formaction", "ping", "background", "style"} & set(attributes), tag
        assert all(not name.startswith("on") for name in attributes)
        assert (attributes.get("href", "#") or "").startswith("#")
    for sheet in page.inside["style"]:
        assert "url(" not in sheet
        assert "@import" not in sheet


def test_what_mattered_in_a_sweep_is_told(page: Page) -> None:
    pytest.importorskip("optuna")
    (sweep,) = page.data["sweeps"]
    shares = [share["mean"] for share in sweep["importance"]]
    named = {share["name"].rpartition(".")[2] for share in sweep["importance"]}
    assert named == {setting["name"] for setting in sweep["settings"]}
    assert shares == sorted(shares, reverse=True)
    assert [float(meter["value"] or "nan") for meter in page.of("meter")] == pytest.approx(shares, abs=6e-4)
    assert "What mattered: the share of fid_digits64_1k's variance" in page.text
    assert {"setting", "share", "share as a bar"} <= {*page.headers}


def test_every_header_of_a_table_has_a_text(page: Page, hostile: Page) -> None:
    """Seen or not: it is what a screen reader says before a cell."""
    for each in (page, hostile):
        assert len(each.headers) == len(each.of("th")) > 3
        assert all(header.strip() for header in each.headers)


def test_its_policy_names_each_script_and_style_by_hash(page: Page) -> None:
    (policy,) = [m["content"] for m in page.of("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    parts = {words[0]: words[1:] for words in (part.split() for part in policy.split(";"))}
    assert parts["default-src"] == ["'none'"]
    assert parts["img-src"] == ["data:"]
    for directive, sources in (("script-src", page.inside["script"][2:]), ("style-src", page.inside["style"])):
        digests = [base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() for source in sources]
        assert parts[directive] == [f"'sha256-{digest}'" for digest in digests]
    kinds = [script.get("type") for script in page.of("script")]
    assert kinds == ["application/json", "application/json", None, None]


def test_the_library_is_what_its_authors_published(page: Page) -> None:
    told = json.loads(PACKAGE.joinpath("uPlot.json").read_text())
    assert set(told["sha256"]) == {p.name for p in PACKAGE.iterdir() if p.name.startswith("uPlot.")} - {"uPlot.json"}
    for name, digest in told["sha256"].items():
        assert hashlib.sha256(PACKAGE.joinpath(name).read_bytes()).hexdigest() == digest, name
    assert f"(v{told['version']})" in PACKAGE.joinpath("uPlot.iife.min.js").read_text()[:100]
    assert "The MIT License" in page.text  # its licence travels with it


def test_our_scripts_never_make_html_of_text() -> None:
    for path in PACKAGE.iterdir():
        if path.name.endswith(".js") and not path.name.startswith("uPlot"):
            source = path.read_text()
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|Function\(", source)
            assert len(source.splitlines()) <= 300


def test_the_table_is_in_the_page_without_a_script(page: Page) -> None:
    rows = [cells for cells in page.cells if cells][1:]
    data = page.data["rows"]
    assert {row["kind"] for row in data} == {"run", "unfinished", "baseline"}
    kinds = ["run", "unfinished", "baseline"]
    for row, cells in zip(sorted(data, key=lambda row: kinds.index(row["kind"])), rows, strict=False):
        assert cells[0].strip().startswith(row["name"])
        expected = [cells[0]]
        for column, cell in zip(page.data["columns"], row["cells"], strict=True):
            expected += [cell["text"] + " (best)" * cell["best"], *[cell["more"]] * column["has_more"]]
        assert cells == expected
    assert any(cell["best"] for row in data for cell in row["cells"])
    assert any("±" in cell["more"] for row in data for cell in row["cells"])
    assert "configurations" in page.text
    assert "±: 95 % t-interval of the mean over seeds" in page.text


def test_the_numbers_are_those_of_the_csv(tmp_path: Path) -> None:
    page = page_of(make_sweep(tmp_path / "sweep", 8, grids=1))
    with (tmp_path / "page-of" / "comparison.csv").open(newline="") as file:
        table = {row["name"]: row for row in csv.DictReader(file) if row["kind"] in ("run", "configuration")}
    compared = [row for row in page.data["rows"] if row["kind"] == "run"]
    assert len(compared) == 4
    for row in compared:
        for column, cell in zip(page.data["columns"], row["cells"], strict=True):
            assert cell["value"] == float(table[row["name"]][column["key"]])


def test_runs_of_a_row_are_its_seeds(page: Page) -> None:
    for row in page.data["rows"]:
        if len(row["runs"]) > 1:
            seeds = [page.data["runs"][run]["seed"] for run in row["runs"]]
            assert seeds == sorted(set(seeds))
    places = sorted(run for row in page.data["rows"] for run in row["runs"])
    assert places == list(range(len(page.data["runs"])))  # every run, once


def test_a_pruned_and_a_failed_trial_say_what_happened(page: Page) -> None:
    (sweep,) = page.data["sweeps"]
    states = {trial["number"]: trial["state"] for trial in sweep["trials"]}
    assert (states[0], states[7], states[13], len(states)) == ("finished", "failed", "pruned", 16)
    assert "out of GPU memory at step 1 (batch 64)" in page.text
    assert [axis["name"] for axis in sweep["settings"]] == ["model", "lr", "seed"]


def test_a_trial_that_was_pruned_is_not_called_finished(tmp_path: Path) -> None:
    make_run(tmp_path / "sweep" / "a")
    make_run(tmp_path / "sweep" / "b", model__optimizer__lr=0.1)
    trial = {"overrides": [], "said": "", "exit_code": 0, "seconds": 1.0, "value": None}
    write(tmp_path / "sweep" / "trials.json", {"command": "", "metric": None, "direction": None, "trials": [
        trial | {"number": 0, "folder": "a", "state": "finished"},
        trial | {"number": 1, "folder": "b", "state": "pruned"}]})  # fmt: skip
    runs = page_of(tmp_path / "sweep").data["runs"]
    assert runs[0]["state"] == "finished"
    assert runs[1]["state"].startswith("pruned; ")


def test_before_anything_has_finished(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "a", finished=False)
    page = page_of(tmp_path / "runs")
    assert "Nothing has finished yet" in page.text
    assert [row["kind"] for row in page.data["rows"]] == ["unfinished"]
    assert len(page.frames[0]) == 2


def test_a_damaged_ledger_is_left_out_and_its_runs_are_not(tmp_path: Path) -> None:
    make_run(tmp_path / "sweep" / "a")
    write(tmp_path / "sweep" / "trials.json", '{"trials": [1]}')
    page = page_of(tmp_path / "sweep")
    assert len(page.data["runs"]) == 1
    assert page.data["sweeps"] == []
    assert [note for note in page.data["notes"] if "trials.json" in note]


# --- Hostile names


def test_hostile_names_add_no_element_and_no_attribute(hostile: Page, page: Page) -> None:
    assert len(NAMES) == len(set(NAMES)) == 40
    assert {tag for tag, _ in hostile.elements} <= {tag for tag, _ in page.elements} | {"abbr", "h3"}
    for tag, attributes in hostile.elements:
        known = {"class", "id", "lang", "charset", "name", "content", "http-equiv", "type", "hidden", "href", "scope",
                 "title", "tabindex", "role", "aria-labelledby", "aria-label", "open", "colspan", "value"}  # fmt: skip
        assert all(name in known or name.startswith("data-") for name in attributes), (tag, attributes)
    assert len(hostile.of("script")) == 4
    assert len(hostile.of("style")) == 2


def printed(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name)


def test_hostile_names_are_shown_as_text(hostile: Page) -> None:
    text = " ".join(hostile.text.split())
    for name in NAMES:
        assert " ".join(printed(name)[:150].split()) in text, name
    for character in "\u202e\u2066\u2067\u2028\u2029\x00\x1b\x07":
        assert character not in hostile.text
    told = [frame["text"] for frames in hostile.frames for frame in frames if "text" in frame]
    assert len(told) == 20
    assert f"PROMPT: {NAMES[0]}" in told


def test_no_name_ends_a_script(hostile: Page) -> None:
    for block in hostile.inside["script"][:2]:
        assert not re.search(r"[<>&\u2028\u2029]", block)
    found = as_script_data({"</script><!--": ["\u2028", math.pi]})
    assert found == '{"\\u003c/script\\u003e\\u003c!--":["\\u2028",3.141592653589793]}'
    with pytest.raises(ValueError, match="Out of range"):
        as_script_data([math.nan])


# --- Small, and honest about it


def test_thinning_keeps_ends_and_extremes() -> None:
    points = [(float(i), random.Random(i).random()) for i in range(5000)]
    points[1234], points[4321] = (1234.0, 9.0), (4321.0, -9.0)
    kept = thinned(points, 200)
    assert len(kept) <= 200
    assert kept == sorted(kept)
    assert {points[0], points[1234], points[4321], points[-1]} <= set(kept)
    assert set(kept) <= set(points)
    assert thinned(points[:200], 200) == points[:200]


def test_progress_is_kept_to_a_thousandth_or_two() -> None:
    spent = [(float(i), i * 64.0, i * 1e9, i * 0.1 + 3 * math.sin(i / 40)) for i in range(1000)]
    kept = pieces(spent)
    assert 2 < len(kept) < 100
    for axis in range(1, 4):
        whole = spent[-1][axis] - spent[0][axis]
        for row in spent:
            high = next(i for i, known in enumerate(kept) if known[0] >= row[0])
            low, up = kept[max(0, high - 1)], kept[high]
            share = (row[0] - low[0]) / (up[0] - low[0]) if up[0] > low[0] else 0
            assert abs(low[axis] + share * (up[axis] - low[axis]) - row[axis]) <= TOLERANCE * whole * 1.01


def test_curves_hold_what_was_logged(tmp_path: Path) -> None:
    write(tmp_path / "metrics.csv", "step,train/loss,val/fid,epoch,progress/examples,progress/flops,progress/seconds\n"
                                    "0,1.5,,0,64,1e9,0.5\n1,nan,,0,128,2e9,1.0\n2,0.5,9,0,192,3e9,1.5\n")  # fmt: skip
    found = curves_of(read_logged(tmp_path))
    assert found.metrics == {"val/fid": [(192, 9)], "train/loss": [(64, 1.5), (192, 0.5)]}
    assert found.spent == [(0, 0, 0), (192, 3e9, 1.5)]  # a straight line needs no more
    assert found.longest == 2
    assert curves_of(read_logged(tmp_path / "no")) == Curves({}, [(0, 0, 0)], 0)


def test_long_curves_share_the_room() -> None:
    long = Curves({"train/loss": [(float(i), 0.0) for i in range(3000)]})
    assert points_each([long]) == 400
    assert points_each([long] * 2000) == 89  # 2.5 million characters, 14 a point


def test_pictures_stay_within_their_room_and_say_what_is_left_out(tmp_path: Path) -> None:
    noise = random.Random(0)
    for run in "ab":
        (tmp_path / run / "samples").mkdir(parents=True)
        for i in range(20):
            image = Image.frombytes("L", (64, 64), noise.randbytes(64 * 64)).resize(
                (256, 256), Image.Resampling.NEAREST
            )
            image.save(tmp_path / run / "samples" / f"examples={i:012d}.png")
    write(tmp_path / "a" / "samples" / "examples=000000000019.png", "not a picture")
    write(tmp_path / "a" / "samples" / "examples=00000000002.png", "not a grid's name")
    whole = pictures([tmp_path / "a", tmp_path / "b"])
    assert [len(frames) for frames in whole.frames] == [11, 12]
    assert [frame["examples"] for frame in whole.frames[1]][-1] == 19
    assert (whole.frames[1][0]["width"], whole.frames[1][0]["zoom"]) == (64, 4)  # no pixel more than was drawn
    assert whole.left_out == ["16 of 40 sample grids", "1 sample grid that cannot be read"]
    assert [line.partition(" cannot")[0] for line in whole.unreadable] == [
        str(tmp_path / "a" / "samples" / "examples=000000000019.png")
    ]
    little = pictures([tmp_path / "a", tmp_path / "b"], room=20_000)
    assert sum(len(frame["src"]) for frames in little.frames for frame in frames) <= 20_000
    assert [frames[-1]["examples"] for frames in little.frames] == [17, 19]  # of each run the newest that was chosen


def test_200_runs_fit_into_10_megabytes(tmp_path: Path) -> None:
    """Without pictures, which have room of their own."""
    page_of(make_sweep(tmp_path / "sweep", 200, points=40, pictures=False))
    assert (tmp_path / "page-of" / "report.html").stat().st_size < 2_500_000


# --- Colors


def linear_rgb(color: str) -> list[float]:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]


def contrast(a: str, b: str) -> float:
    """Of two colors (WCAG 2)."""

    def luminance(color: str) -> float:
        r, g, b = linear_rgb(color)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    dark, light = sorted((luminance(a), luminance(b)))
    return (light + 0.05) / (dark + 0.05)


def test_text_and_lines_stand_out_from_the_paper() -> None:
    sheet = PACKAGE.joinpath("page.css").read_text()
    pairs = {n: (a, b) for n, a, b in re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", sheet)}
    for scheme in (0, 1):
        for name, needed in [
            ("ink", 7),
            ("muted", 4.5),
            ("accent", 4.5),
            ("bad", 4.5),
            *((f"run-{i}", 3) for i in range(1, 9)),
        ]:
            for paper in ("paper", "raised"):
                assert contrast(pairs[name][scheme], pairs[paper][scheme]) >= needed, (name, paper, scheme)
        assert contrast(pairs["accent"][scheme], pairs["tint"][scheme]) >= 4.5


# To linear RGB as seen without one kind of cone (Machado, Oliveira and Fernandes 2009, severity 1).
SEEN = {
    "by all": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanope": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranope": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881)),
    "tritanope": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.3039)),
}


@pytest.mark.parametrize("who", SEEN)
def test_everyone_tells_the_runs_colors_apart(who: str) -> None:
    sheet = PACKAGE.joinpath("page.css").read_text()
    pairs = re.findall(r"--run-\d: light-dark\((#\w{6}), (#\w{6})\)", sheet)
    assert len(pairs) == 8

    def lab(color: str) -> tuple[float, float, float]:
        linear = linear_rgb(color)
        r, g, b = (min(1.0, max(0.0, sum(w * c for w, c in zip(row, linear, strict=True)))) for row in SEEN[who])
        xyz = ((0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505, 0.2126 * r + 0.7152 * g + 0.0722 * b,
               (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089)  # fmt: skip
        x, y, z = (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in xyz)
        return 116 * y - 16, 500 * (x - y), 200 * (y - z)

    for scheme in zip(*pairs, strict=True):
        for a, b in itertools.combinations(scheme, 2):
            assert math.dist(lab(a), lab(b)) > 15, (a, b)  # CIE 1976; 2 can just be seen side by side
