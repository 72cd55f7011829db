"""The report says what the evaluation says, whatever videos are called, on a phone and on a desk; it loads nothing."""

from __future__ import annotations

import base64
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from vad.datasets.annotation import AnnotatedVideo, Benchmark, Interval
from vad.evaluation import report
from vad.evaluation.alignment import align
from vad.evaluation.comparison import compare
from vad.evaluation.measure import Settings, evaluate
from vad.evaluation.scores import Scores, ScoreSet
from vad.metrics.audit import Provenance

QUICK = Settings(resamples=20)
HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(2)'>",
    "{{ 7 * 7 }} {% raw %}",
    "$\\frac{a}$ _x_ ^",
    "日本語 \U0001f525 \x1b[31m\x00",
    "\udcff from a disk",
    "a" * 300,
)
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SIZES = {"phone": (390, 844), "desk": (1280, 900)}
VOID = {"meta", "link", "img", "br"}


def benchmark(names=("a", "b", "c", "d", "e"), *, normal=2, fps=25.0, frames=200):
    """Videos of which the last few are normal; categories alternate."""
    videos = []
    for place, name in enumerate(names):
        if place >= len(names) - normal:
            videos.append(AnnotatedVideo(name, frames, (), (), fps))
            continue
        category = ("Fight", "Fall")[place % 2]
        spans = (Interval(40 + place % 30, 80, category), Interval(120, 150 + place % 30, category))
        videos.append(AnnotatedVideo(name, frames, spans, (category,), fps))
    return Benchmark("toy", "made for a test", tuple(videos))


def score_set(of, *, name="system", good=0.5, seed=0, skip=(), scale=1.0, **provenance):
    random = np.random.default_rng(seed)
    videos = {}
    for video in of.videos:
        values = scale * np.clip(random.random(video.num_frames) * 0.5 + good * video.labels(), 0, 1)
        if video.name not in skip:
            videos[video.name] = Scores(values, "frames")
    return ScoreSet(name, "frames", videos, Provenance(**provenance))


def measured(of=None, scores=None, settings=QUICK, **options):
    of = of or benchmark()
    scores = scores or score_set(of, **options)
    alignment = align(scores, of, allow_missing=True)
    return evaluate(scores, of, alignment, settings), alignment.videos


def renamed(evaluation, videos, names):
    """As if the videos, and a category, were called so: no reader of files would let all of these through."""
    results = tuple(replace(one, name=name) for one, name in zip(evaluation.videos, names, strict=True))
    kinds = tuple(replace(one, name=HOSTILE[0]) for one in evaluation.categories)
    scored = [
        replace(one, name=name, categories=(HOSTILE[0],) * len(one.categories))
        for one, name in zip(videos, names, strict=True)
    ]
    return replace(evaluation, videos=results, categories=kinds, missing=(HOSTILE[1],)), scored


class Page(HTMLParser):
    """What a test wants to know of a page; a tag that is not closed in order is an error."""

    def __init__(self, text):
        super().__init__()
        self.text, self.open, self.ids, self.headings, self.images = text, [], [], [], []
        self.addresses, self.cells, self.words, self.tags = [], {}, [], set()
        self._metric = None
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        known = dict(attrs)
        assert len(known) == len(attrs), f"an attribute twice in {tag}: {attrs}"
        assert not any(name.startswith("on") for name in known), attrs
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [known["id"]] if "id" in known else []
        self.addresses += [known[name] for name in ("href", "src") if name in known]
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "img":
            self.images.append(known)
        if tag == "th":
            assert known.get("scope"), "a header cell must say what it heads"
        self._metric = known.get("data-metric", self._metric)
        if tag == "data" and self._metric:
            self.cells[self._metric] = float(known["value"])

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag
        if tag == "tbody":
            self._metric = None

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    @property
    def prose(self):
        return " ".join(" ".join(self.words).split())


def page(*args, **options):
    """A page whose form has been looked over."""
    found = Page(report.render(*args, **options))
    assert len(found.ids) == len(set(found.ids)), "an id twice"
    assert found.headings[0] == 1
    assert found.headings.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(found.headings, found.headings[1:], strict=False))
    assert all(address.startswith(("data:", "#", "./")) for address in found.addresses), found.addresses
    assert "script" not in found.tags
    assert {address[1:] for address in found.addresses if address.startswith("#")} <= set(found.ids)
    for image in found.images:
        assert len(image["alt"]) > 20
        drawing = base64.b64decode(image["src"].removeprefix("data:image/svg+xml;base64,"))
        assert ElementTree.fromstring(drawing).tag.endswith("svg")
    return found


# what it says --------------------------------------------------------------------------------------------------------


def test_every_number_is_on_the_page():
    evaluation, videos = measured()
    found = page(evaluation, videos)
    defined = {name: number.value for name, number in evaluation.metrics.items() if not np.isnan(number.value)}
    assert found.cells == pytest.approx(defined)
    assert all(finding.message in found.prose for finding in evaluation.findings)
    for control in evaluation.controls.values():
        assert report.show(control.auc) in found.prose


def test_a_metric_that_nobody_described_is_shown_nevertheless():
    evaluation, videos = measured()
    auc = evaluation.metrics["auc"]
    found = page(replace(evaluation, metrics={**evaluation.metrics, "brand_new": auc}), videos)
    assert found.cells["brand_new"] == auc.value


@pytest.mark.parametrize(
    ("good", "words"),
    [(-0.5, "this score set says less than that"), (0.9, "more than that, and more than every other control")],
)
def test_the_verdict_is_the_comparison_with_the_control(good, words):
    evaluation, videos = measured(good=good)
    known = evaluation.controls["perfect video label"].auc
    prose = page(evaluation, videos).prose
    assert f"Frame AUC {evaluation.frame.auc:.3f} (95 % of resamples: " in prose
    assert f"reaches {known:.3f} on the same videos: " in prose
    assert words in prose


def test_a_number_that_a_control_reaches_is_marked():
    poor, videos = measured(good=0.0)
    assert "not above “label × middle”" in page(poor, videos).prose
    fine, videos = measured(good=0.9)
    assert "not above" not in page(fine, videos).prose.split("Curves")[1].split("How it was measured")[0]
    assert "above every control" in page(fine, videos).prose


def test_missing_videos_are_in_the_headline():
    evaluation, videos = measured(skip=("b", "e"))
    text = report.render(evaluation, videos)
    headline = re.search(r"<h1>(.*?)</h1>", text, re.DOTALL)[1]
    assert "on 3 of 5 videos of toy" in re.sub("<.*?>", "", headline)
    assert "2 of 5 videos are missing" in page(evaluation, videos).prose


def test_flags_come_first():
    evaluation, videos = measured(checkpoint="test", lookahead_s=0.0)
    prose = page(evaluation, videos).prose
    assert prose.index("▲ flagged checkpoint") < prose.index("? unknown settings") < prose.index("✓ clean look-ahead")
    assert "Audit: 2 flagged, " in prose  # and the size of the set


def test_the_worst_and_the_best_videos_are_drawn_once():
    names = [f"v{place}" for place in range(12)]
    evaluation, videos = measured(benchmark(names, normal=4), good=0.2)
    areas = {video.name: video.auc for video in evaluation.videos if not np.isnan(video.auc)}
    order = sorted(areas, key=areas.get)
    drawn = [
        image["alt"].split()[2] for image in page(evaluation, videos).images if image["alt"].startswith("Score of")
    ]
    assert drawn[:6] == [*order[:3], *order[:-4:-1]]
    assert len(drawn) == len(set(drawn)) == 9


def test_the_table_stops_at_a_thousand_videos(monkeypatch):
    monkeypatch.setattr(report, "_MOST_ROWS", 3)
    evaluation, videos = measured()
    assert "The first 3 of 5; metrics.json has all." in page(evaluation, videos).prose


def test_the_same_evaluation_gives_the_same_bytes():
    evaluation, videos = measured()
    assert report.render(evaluation, videos) == report.render(evaluation, videos)


# whatever the input --------------------------------------------------------------------------------------------------


def test_hostile_names_are_only_names(tmp_path):
    of = replace(benchmark([f"v{place}" for place in range(len(HOSTILE))]), name=HOSTILE[0], protocol=HOSTILE[1])
    evaluation, scored = renamed(*measured(of, name=HOSTILE[1], system=HOSTILE[0], notes=HOSTILE[2]), HOSTILE)
    neighbours = ["javascript:alert(3)", "a b.json"]
    found = page(evaluation, scored, neighbours=neighbours)
    assert HOSTILE[0] in found.prose
    assert "{{ 7 * 7 }}" in found.prose
    assert found.addresses[-2:] == ["./javascript%3Aalert%283%29", "./a%20b.json"]
    report.write(tmp_path / "report.html", evaluation, scored, neighbours=neighbours)
    assert "<script" not in (tmp_path / "report.html").read_text("utf-8")


def only(names, normal, **options):
    return measured(benchmark(names, normal=normal, **options.pop("of", {})), **options)


CASES = {
    "no abnormal video": lambda: only("ab", 2),
    "no normal video": lambda: only("ab", 0),
    "one abnormal video": lambda: only("a", 0),
    "one normal video": lambda: only("a", 1),
    "scores outside [0, 1]": lambda: measured(scale=40.0),
    "negative scores": lambda: measured(scale=-3.0),
    "no frame rate": lambda: measured(benchmark(fps=None)),
    "no frame rate, scores outside [0, 1]": lambda: measured(benchmark(fps=None), scale=40.0),
    "one score throughout": lambda: measured(scale=0.0),
    "one frame": lambda: only("ab", 2, of={"frames": 1}),
    "long videos": lambda: measured(benchmark(frames=5000)),
    "many videos": lambda: only([f"v{place}" for place in range(260)], 40),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return request.param, *CASES[request.param]()


def test_a_page_comes_of_anything(case):
    name, evaluation, videos = case
    found = page(evaluation, videos)
    assert "nan" not in found.prose.lower()
    for group, why in evaluation.omitted.items():
        assert f"{group} : {why}" in found.prose
    if not evaluation.frame.abnormal_videos:
        assert "Frame AUC is not defined: no frame of these videos is abnormal" in found.prose
    if "outside" in name or "negative" in name:
        assert "metrics with a threshold" in found.prose
        assert "Events missed" not in found.prose


# comparison ----------------------------------------------------------------------------------------------------------


def compared(names=("first", "second", "third")):
    of = benchmark([f"v{place}" for place in range(10)], normal=4)
    sets = [score_set(of, name=name, good=0.3 * place, seed=place) for place, name in enumerate(names)]
    both = [measured(of, scores) for scores in sets]
    differences = compare({one.scores: videos for one, videos in both}, Settings(resamples=100))
    return differences, [one for one, _ in both]


def test_a_comparison_says_every_difference():
    differences, evaluations = compared()
    found = Page(report.render_comparison(differences, evaluations))
    assert [float(one) for one in re.findall(r'<data value="([^"]+)"', found.text)] == pytest.approx(
        [one.difference.value for one in differences]
    )
    assert "third is above first in frame AUC: first − third is −0." in found.prose
    assert len(found.images) == len({one.metric for one in differences})


def test_a_difference_is_not_sure_by_its_interval_alone():
    one = compared()[0][1]
    assert report.told_apart(replace(one, p=0.01), 0.95)
    assert not report.told_apart(replace(one, p=0.2), 0.95)
    assert not report.told_apart(replace(one, difference=replace(one.difference, low=-1.0, high=1.0), p=0.01), 0.95)


def test_hostile_systems_are_only_names():
    assert "<script" not in report.render_comparison(*compared(HOSTILE[:3]))


# in a browser --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on the path; install it with: sudo apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield running
        running.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    names = [*HOSTILE, *(f"v{place}" for place in range(50))]
    of = benchmark([f"v{place}" for place in range(len(names))], normal=10)
    hostile, hostile_videos = renamed(*measured(of, good=0.2, name="w" * 120), names)
    report.write(folder / "hostile.html", hostile, hostile_videos, neighbours=["metrics.json"])
    evaluation, videos = measured()
    report.write(folder / "report.html", evaluation, videos)
    report.write_comparison(folder / "comparison.html", *compared())
    return folder, evaluation


@pytest.fixture
def visit(browser, pages):
    contexts, troubles = [], []

    def go(name, size) -> object:
        context = browser.new_context(viewport=dict(zip(("width", "height"), SIZES[size], strict=True)))
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: troubles.append(message.text))
        tab.on("pageerror", lambda error: troubles.append(str(error)))
        tab.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.dismiss()))
        tab.on("requestfailed", lambda request: troubles.append(request.url[:200]))
        tab.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else troubles.append(r.url))
        tab.goto((pages[0] / f"{name}.html").as_uri())
        return tab

    yield go
    for context in contexts:
        context.close()
    assert not troubles


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["report", "hostile", "comparison"])
def test_a_page_fits_and_loads_nothing(visit, name, size):
    tab = visit(name, size)
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert tab.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert tab.locator("h1").count() == 1
    assert tab.locator("h2").all_inner_texts()
    # nothing is cut off at the side, except in what scrolls by itself
    beyond = """[...document.querySelectorAll('body *')].filter(each => !each.closest('.scroll, thead'))
        .filter(each => each.getBoundingClientRect().right > innerWidth + 1).map(each => each.outerHTML.slice(0, 99))"""
    assert tab.evaluate(beyond) == []


@pytest.mark.parametrize("size", SIZES)
def test_the_numbers_that_a_reader_sees_are_those_of_the_evaluation(visit, pages, size):
    tab = visit("report", size)
    for name, number in pages[1].metrics.items():
        row = tab.locator(f'tr[data-metric="{name}"]')
        seen = row.locator(".value").inner_text()
        measure = float(seen.removesuffix(" %").removesuffix(" s")) / (100 if seen.endswith("%") else 1)
        assert measure == pytest.approx(number.value, rel=0.01, abs=0.0006)
        if not np.isnan(number.low):
            assert row.locator(".interval").is_visible()
    controls = tab.locator('tr[data-metric="auc"] .control')
    assert [controls.nth(place).is_visible() for place in range(4)] == [True] * 4
    assert controls.all_inner_texts() == [report.show(one.auc) for one in pages[1].controls.values()]


def test_a_page_can_be_printed(visit, tmp_path):
    paper = Path(tmp_path / "report.pdf")
    visit("report", "desk").pdf(path=paper)
    assert paper.read_bytes().startswith(b"%PDF")
