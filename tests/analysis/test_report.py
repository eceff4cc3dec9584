"""The HTML report in a real browser: chromium, headless, from disk."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from synthetic_runs import collapsing, steady, write_pretraining, write_run

from analysis.claims.claim_tables import claims_table
from analysis.claims.verdicts import findings
from analysis.data.collect import collect
from analysis.data.measures import measure
from analysis.figures import Drawn
from analysis.report import as_script, write_report
from analysis.tables.paper_tables import table_1

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome is installed")

HOSTILE = "</script><script>window.hacked = true</script><img src=x onerror='window.hacked = true'>"

# Run in the page, once it is drawn; what it returns is what the tests look at.
LOOK = """
const rows = () => [...document.querySelectorAll("#collapse > tbody > tr")];
const names = () => rows().map(row => [...row.cells].slice(0, 3).map(cell => cell.innerText.trim()).join(" | "));
const box = (filter, value) => [...document.querySelectorAll(`[data-filter=${filter}]`)].find(b => b.value === value);
const panels = () => document.querySelectorAll("#curves svg[role=img]").length;
const tooltip = () => document.getElementById("tooltip");
await new Promise(done => setTimeout(done, 50));
const found = {rows: names(), panels: panels(), caveat: document.getElementById("caveat").innerText};
found.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
const switches = name => document.querySelectorAll(`#curves svg[aria-label^="${name}"] line.switch`).length;
found.switches = [switches("hopper from scratch"), switches("regen")];
found.scratchSteps = document.querySelector("#curves svg[aria-label^='hopper from scratch']").textContent;
box("label", "TD3").click();
found.withoutTd3 = names();
found.shown = document.getElementById("shown").innerText;
box("label", "TD3").click();
box("dataset", "hopper from scratch").click();
found.panelsWithoutScratch = panels();
box("dataset", "hopper from scratch").click();
const regret = data.columns.indexOf("regret");
document.querySelectorAll("#collapse thead button")[regret].click();
found.byRegret = names();
found.sorted = document.querySelectorAll("#collapse thead th")[regret].getAttribute("aria-sort");
found.focused = document.activeElement.innerText;
rows()[0].querySelector("td.number a").click();
found.links = [...document.querySelectorAll("tr.runs a")].map(a => a.getAttribute("href"));
found.seeds = document.querySelectorAll("tr.runs tbody tr").length;
const svg = document.querySelector("#curves svg[aria-label^=regen]");
svg.focus();
svg.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight", bubbles: true}));
found.tooltip = tooltip().innerText;
found.seedLines = svg.querySelectorAll("path.seed").length;
svg.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape", bubbles: true}));
found.hiddenAgain = tooltip().hidden;
const place = svg.getBoundingClientRect();
const at = {clientX: place.left + 150, clientY: place.top + 60, bubbles: true};
svg.dispatchEvent(new PointerEvent("pointermove", at));
found.pointed = tooltip().innerText;
const paper = getComputedStyle(document.body).backgroundColor;
document.getElementById("theme").click();
document.getElementById("theme").click();
found.dark = getComputedStyle(document.body).backgroundColor !== paper;
found.hacked = Boolean(window.hacked);
found.hostile = document.body.innerText.includes("<script>");
const why = [...document.querySelectorAll("details.why")].find(part => !part.open);
why.open = true;
await new Promise(done => setTimeout(done, 50));
found.reasons = [...why.querySelectorAll("figcaption")].map(caption => caption.innerText);
found.reasonLines = why.querySelectorAll("path.mean").length;
found.headline = document.getElementById("headline").innerText;
found.stuck = rows()[0].querySelectorAll(".stuck").length;
found.levels = [...document.querySelectorAll("#curves .panels svg")][0].querySelectorAll("line.offline").length;
found.widest = Math.max(...[...document.querySelectorAll("#curves svg[role=img]")].map(view => view.clientWidth));
found.figures = document.getElementById("figures").innerText;
"""


def open_page(path: Path, look: str, tmp_path: Path) -> tuple[dict, list[str]]:
    """What `look` found in the page, and the browser's complaints."""
    page = path.with_name("looked-at.html")
    end = f"<script>(async () => {{{look}; document.body.dataset.found = JSON.stringify(found);}})()</script></body>"
    page.write_text(path.read_text(encoding="utf-8").replace("</body>", end), encoding="utf-8")
    options = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        f"--user-data-dir={tmp_path / 'user'}", "--window-size=1320,1400", "--enable-logging=stderr",
        "--virtual-time-budget=3000", "--dump-dom",
    ]  # fmt: skip
    done = subprocess.run(
        [str(BROWSER), *options, page.resolve().as_uri()],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    content = re.search(r'data-found="([^"]*)"', done.stdout)
    return json.loads(html.unescape(content[1])) if content else {}, complaints


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    runs = root / "runs"
    for seed in range(3):
        write_pretraining(runs, "regen-hopper-medium", 50.0, seed, source="regenerated")
        for algorithm, shape in (("td3", collapsing(50.0, 10.0, 90.0)), ("td3_bc", steady(50.0, 60.0))):
            for replay in ("offline", "empty"):
                write_run(
                    runs, "regen-hopper-medium", algorithm, shape, seed=seed, replay=replay, noise=1.0,
                    source="regenerated",
                )  # fmt: skip
        write_run(
            runs, "regen-hopper-medium", "td3", steady(1.0, 60.0), seed=seed, replay="empty", scratch=True
        )
    write_run(runs, "odd", "td3_c", steady(50.0, 60.0), overrides={"dataset.name": HOSTILE})
    collection = collect(runs)
    drawn = [Drawn("figure1", "Figure 1", None, ("no finished run",))]
    return write_report(
        collection, measure(collection.cells), root / "out" / "index.html", drawn, [table_1(collection.cells)]
    )


@pytest.fixture(scope="module")
def looked(report, tmp_path_factory):
    if BROWSER is None:
        pytest.skip("no chromium or chrome is installed")
    return open_page(report, LOOK, tmp_path_factory.mktemp("browser"))


def test_the_page_loads_without_complaints(looked):
    found, complaints = looked
    assert complaints == []
    assert len(found["rows"]) == 6
    assert found["panels"] == 4  # two replays, from scratch, and the odd one
    assert found["overflow"] <= 0


@needs_browser
def test_a_complaint_would_be_noticed(report, tmp_path):
    _, complaints = open_page(report, "null.nothing", tmp_path)
    assert len(complaints) == 1


def test_a_filter_takes_its_lines_and_rows_away(looked):
    found, _ = looked
    assert [row for row in found["withoutTd3"] if "| TD3 |" in row] == []
    assert len(found["withoutTd3"]) == 3
    assert found["shown"].startswith("(shown: 3 of 6 settings, 7 runs")
    assert found["panelsWithoutScratch"] == 3


def test_the_table_sorts_by_the_column_that_is_clicked(looked):
    found, _ = looked
    assert found["sorted"] == "descending"
    assert all("TD3 |" in row for row in found["byRegret"][:2])
    assert "from scratch" in found["byRegret"][-1]  # nothing to lose, so no regret: last whatever the order
    assert found["focused"].startswith("regret")


def test_numbers_lead_to_run_directories_and_configurations(looked, report):
    found, _ = looked
    assert found["seeds"] == 3
    targets = {(report.parent / unquote(link)).resolve() for link in found["links"]}
    assert all(target.exists() for target in targets)
    assert {target.name for target in targets} >= {"seed-0", "seed-2", "config.yaml"}


def test_seeds_are_seen_by_pointing_and_by_the_keyboard(looked):
    found, _ = looked
    assert re.search(r"learner step 500,500 .*env step 500", found["tooltip"])
    assert "seeds of TD3: 0:" in found["tooltip"]
    assert found["seedLines"] == 3
    assert found["hiddenAgain"] is True
    assert "seeds of" in found["pointed"]


def test_what_is_from_scratch_begins_with_its_first_step_and_has_no_switch(looked):
    found, _ = looked
    assert found["switches"] == [0, 2]
    assert "200learner steps" in found["scratchSteps"]
    assert "700" not in found["scratchSteps"]


def test_it_is_dark_for_who_wants_it_dark(looked):
    assert looked[0]["dark"] is True


def test_what_a_run_is_called_is_shown_and_never_run(looked):
    found, _ = looked
    assert found["hacked"] is False
    assert found["hostile"] is True


def test_regenerated_data_is_labelled(looked):
    found, _ = looked
    assert "† regenerated data, not D4RL's" in found["caveat"]
    assert [row for row in found["rows"] if row.startswith("regen") and "medium†" not in row] == []
    assert "regen-hopper-medium†" in found["headline"]


def test_the_page_says_what_happened_and_why(looked):
    found, _ = looked
    lost = (
        r"TD3 \(replay offline\) lost 39 of 50 points, half of it within 1\s500 env steps, in 3 of 3 seeds\."
    )
    assert re.search(lost, found["headline"])
    assert "No seed of TD3-BC (replay offline), TD3-BC (replay empty) collapsed." in found["headline"]
    assert found["reasons"][0] == "replay: offline"
    assert "Q − discounted return earned" in found["reasons"]
    assert found["reasonLines"] > 0


def test_panels_use_the_page_and_first_columns_stay(looked):
    found, _ = looked
    assert found["widest"] > 500
    assert found["stuck"] == 3
    assert found["levels"] == 1


@needs_browser
def test_what_ended_earlier_says_so_where_others_go_on(tmp_path):
    write_run(
        tmp_path / "runs", "hopper-medium-v2", "td3", steady(50.0, 60.0), steps=np.array([0, 1_000, 2_000])
    )
    write_run(tmp_path / "runs", "hopper-medium-v2", "td3_bc", steady(50.0, 60.0), steps=np.array([0, 3_000]))
    collection = collect(tmp_path / "runs")
    page = write_report(collection, measure(collection.cells), tmp_path / "index.html")
    look = """
const svg = document.querySelector("#curves svg[aria-label^=hopper]"), told = [];
svg.focus();
for (let i = 0; i < 3; i += 1) {
  svg.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight", bubbles: true}));
  told.push(document.getElementById("tooltip").innerText);
}
const found = {told};
"""
    found, _ = open_page(page, look, tmp_path)
    first, second, third = found["told"]
    assert "env step 1,000" in first
    assert "TD3-BC: 50" in first  # its last evaluation, at the switch, not its next
    assert "TD3: 50.1" in second
    assert "env step 3,000" in third
    assert "TD3: ended at 2,000" in third
    assert "TD3-BC: 50.2" in third


def test_settings_of_two_pretrainings_have_an_axis_from_the_switch_and_two_levels(tmp_path):
    for updates, start in ((2_000, 30.0), (30_000, 60.0)):
        own = {"pretrain.updates": updates}
        write_run(tmp_path / "runs", "hopper-medium-v2", "td3", steady(start, 50.0), overrides=own)
    collection = collect(tmp_path / "runs")
    page = write_report(collection, measure(collection.cells), tmp_path / "index.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])
    assert (data["switch"], data["axis"]) == (0, "env steps since the switch (thousands)")
    assert [own["offline"] for own in data["pretrainings"]] == [30.0, 60.0]
    assert [cell["pretraining"] for cell in data["cells"]] == [0, 1]
    assert len({cell["color"] for cell in data["cells"]}) == 2


def test_claims_without_runs_are_told_apart_from_those_with(tmp_path):
    write_run(tmp_path / "runs", "hopper-medium-v2", "td3", collapsing(50.0, 10.0, 90.0))
    collection = collect(tmp_path / "runs")
    arms = measure(collection.cells)
    claims = claims_table(findings(collection.cells, arms))
    page = write_report(collection, arms, tmp_path / "index.html", tables=[claims]).read_text()
    (told,) = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])["tables"]
    shown, idle = ({row[0][0] for row in told[part]} for part in ("rows", "idle"))
    assert "td3-collapses" in shown
    assert "td3-bc-does-not-collapse" in idle
    assert shown.isdisjoint(idle)


def test_what_was_not_drawn_is_said(looked):
    assert "not drawn: no finished run" in looked[0]["figures"]


def test_the_file_holds_nothing_that_is_loaded_from_elsewhere(report):
    text = report.read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)=["'](?!data:)|url\(|@import""", text.split('id="data"')[0])
    assert "default-src 'none'" in text


def test_nothing_in_the_data_can_end_its_element():
    text = as_script({"name": HOSTILE, "and": "a & b"})
    assert not set("<>&") & set(text)
    assert json.loads(text) == {"name": HOSTILE, "and": "a & b"}


def test_the_same_runs_make_the_same_bytes(report, tmp_path):
    collection = collect(report.parent.parent / "runs")
    path = write_report(collection, measure(collection.cells), report.with_name("again.html"))
    again = write_report(collection, measure(collection.cells), report.with_name("again2.html"))
    assert path.read_bytes() == again.read_bytes()
