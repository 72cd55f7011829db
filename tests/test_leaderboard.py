"""Published results: the data hold together, a value finds its place, and the page says what it should."""

from __future__ import annotations

import json
import math
from collections import Counter

import pytest
import typer
from typer.testing import CliRunner

from vad import leaderboard
from vad.cli.console import guarded
from vad.cli.leaderboard import run
from vad.leaderboard import Group, Published, place

ENTRIES = leaderboard.load()
GROUPS = leaderboard.groups(ENTRIES)


def find(system: str, dataset: str, metric: str, **more: str) -> list[float]:
    return [
        entry.value
        for entry in ENTRIES
        if (entry.system, entry.dataset, entry.metric) == (system, dataset, metric)
        and all(getattr(entry, name) == value for name, value in more.items())
    ]


def entry(system: str, value: float, **more) -> Published:
    asked = {"dataset": "ped2", "protocol": "one-class", "metric": "auc", "evidence": "paper", **more}
    return Published(system=system, value=value, **asked)


def control(value: float, **more) -> Published:
    return entry("control", value, protocol="control", evidence="computed", **more)


@pytest.fixture
def vad(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # a pipe has 80 columns whatever the terminal around it has
    app = typer.Typer()

    @app.command()
    @guarded
    def command(
        dataset: str | None = None,
        metric: str | None = None,
        protocol: str | None = None,
        place: float | None = None,
        as_json: bool = typer.Option(False, "--json"),
    ) -> int:
        return run(dataset=dataset, metric=metric, protocol=protocol, value=place, as_json=as_json)

    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


class TestTheData:
    def test_every_result_is_there_once(self):
        keys = Counter(
            (e.system, e.variant, e.dataset, e.split, e.protocol, e.metric, e.ap_definition) for e in ENTRIES
        )
        assert [key for key, count in keys.items() if count > 1] == []

    @pytest.mark.parametrize("one", ENTRIES, ids=lambda e: f"{e.name}-{e.dataset}-{e.metric}")
    def test_a_result_is_a_percentage_with_short_whole_sentences(self, one):
        assert type(one.value) is float
        assert 0 <= one.value <= one.high <= 100
        # a fraction put in by mistake would be this small
        assert one.value > 1 or one.metric == "far"
        for caveat in one.caveats:
            assert caveat.endswith(".")
            assert len(caveat) < 130
        assert len(set(one.caveats)) == len(one.caveats)

    def test_every_system_has_a_number(self):
        from importlib.resources import files

        from vad.config import Document

        document = Document.read(files("vad.leaderboard") / "published.yaml")
        assert set(document.data["systems"]) == {one.system for one in ENTRIES}

    def test_a_benchmark_with_several_splits_always_names_one(self):
        for one in ENTRIES:
            if one.protocol != "control":
                assert bool(one.split) == (one.dataset in {"shanghaitech", "msad"}), one

    def test_every_name_is_used(self):
        assert {one.dataset for one in ENTRIES} == set(leaderboard.DATASETS)
        assert {one.metric for one in ENTRIES} == set(leaderboard.METRICS)
        assert {one.protocol for one in ENTRIES} == set(leaderboard.PROTOCOLS)

    @pytest.mark.parametrize(
        ("system", "dataset", "metric", "values"),
        [
            ("perfect video label, constant", "ucf-crime", "auc", [81.5]),
            ("centre-of-video Gaussian", "ucf-crime", "auc", [61.9]),
            ("perfect video label × centre Gaussian", "ucf-crime", "auc", [86.5]),
            ("perfect video label, constant", "xd-violence", "auc", [84.9]),
            ("centre-of-video Gaussian", "xd-violence", "auc", [54.6]),
            ("perfect video label × centre Gaussian", "xd-violence", "auc", [87.0]),
            ("perfect video label, constant", "xd-violence", "ap", [49.8, 74.9]),
            ("perfect video label, constant", "ucf-crime", "ap", [18.2, 59.1]),
            ("VadCLIP", "ucf-crime", "auc", [88.02]),
            ("VadCLIP", "xd-violence", "ap", [84.51]),
            ("PEL4VAD", "ucf-crime", "auc", [86.76, 86.36]),
            ("PRISM", "ucf-crime", "auc", [88.85]),
            ("MULDE", "shanghaitech", "auc", [86.7, 81.3]),
            ("LAS-VAD", "xd-violence", "map", [36.89]),
            ("TLMA", "ucf-crime", "far", [1.56]),
            ("HyCoVAD", "complexvad", "auc", [72.5]),
        ],
    )
    def test_known_numbers(self, system, dataset, metric, values):
        assert find(system, dataset, metric) == values

    def test_a_range_keeps_both_ends(self):
        (one,) = [e for e in ENTRIES if e.system == "PE-MIL" and e.metric == "ap"]
        assert (one.value, one.value_high) == (88.05, 88.21)

    def test_the_closed_form_of_the_controls(self):
        normal, normal_in_abnormal, positive = 646_777, 378_558, 84_345
        auc = (normal + normal_in_abnormal / 2) / (normal + normal_in_abnormal)
        precision = positive / (positive + normal_in_abnormal)
        assert find("perfect video label, constant", "ucf-crime", "auc") == [round(100 * auc, 1)]
        assert find("perfect video label, constant", "ucf-crime", "ap", ap_definition="step-wise") == [
            round(100 * precision, 1)
        ]
        assert find("perfect video label, constant", "ucf-crime", "ap", ap_definition="trapezoid") == [
            round(50 * (1 + precision), 1)
        ]

    @pytest.mark.parametrize(
        ("wrong", "match"),
        [
            ({"metric": "ap"}, "ap_definition belongs"),
            ({"ap_definition": "step-wise"}, "ap_definition belongs"),
            ({"value_high": 50.0}, "above value"),
            ({"evidence": "computed"}, "controls are computed"),
            ({"dataset": "ucf"}, "ucf-crime"),
            ({"value": math.nan}, "less than or equal to 100"),
            ({"stars": 5}, "stars"),
        ],
    )
    def test_a_result_that_contradicts_itself_is_refused(self, wrong, match):
        with pytest.raises(ValueError, match=match):
            entry("x", **{"value": 50.0, **wrong})


class TestPlace:
    rows = (entry("a", 90.0), entry("b", 80.0), entry("c", 80.0), entry("d", 70.0, value_high=72.0), control(75.0))

    def place(self, value: float):
        return place(value, "ped2", "auc", protocol="one-class", entries=self.rows)

    @pytest.mark.parametrize(
        ("value", "rank", "above", "tied", "below"),
        [
            (95, 1, "", "", "abcd"),
            (90, 1, "", "a", "bcd"),
            (85, 2, "a", "", "bcd"),
            (80, 2, "a", "bc", "d"),
            (71, 4, "abc", "d", ""),  # inside a range: cannot be told apart
            (70, 4, "abc", "d", ""),
            (10, 5, "abcd", "", ""),
        ],
    )
    def test_rank_ties_and_neighbours(self, value, rank, above, tied, below):
        placement = self.place(value)
        assert placement.rank == rank
        assert placement.total == 4
        for rows, names in ((placement.above, above), (placement.tied, tied), (placement.below, below)):
            assert [row.system for row in rows] == list(names)
        assert (placement.next_above.system if above else placement.next_above) == (above[-1] if above else None)
        assert (placement.next_below.system if below else placement.next_below) == (below[0] if below else None)

    @pytest.mark.parametrize(("value", "beats"), [(75.1, True), (75.0, False), (74.9, False)])
    def test_a_control_is_beaten_only_by_more(self, value, beats):
        placement = self.place(value)
        assert bool(placement.beaten) is beats
        assert bool(placement.unbeaten) is not beats

    def test_of_false_alarms_fewer_are_better(self):
        placement = place(0.5, "ucf-crime", "far", protocol="weak")
        assert [row.value for row in placement.above] == [0.47]
        assert [row.value for row in placement.below] == [1.05, 1.56, 1.9]

    def test_average_precision_is_held_against_its_own_definition_or_an_unstated_one(self):
        step = place(80, "xd-violence", "ap", protocol="weak")
        trapezoid = place(80, "xd-violence", "ap", protocol="weak", ap_definition="trapezoid")
        of = {
            name: {row.ap_definition for row in (*one.above, *one.below)}
            for name, one in {"step": step, "trapezoid": trapezoid}.items()
        }
        assert of == {"step": {"step-wise", "unknown"}, "trapezoid": {"trapezoid", "unknown"}}
        assert [c.value for c in step.beaten] == [49.8]
        assert [c.value for c in trapezoid.beaten] == [74.9]

    def test_the_splits_of_a_benchmark_do_not_meet(self):
        assert place(97, "shanghaitech", "auc", protocol="weak").rank == 8  # 96.78-97.57 lies around it
        assert place(97, "shanghaitech", "auc", protocol="one-class", split="one-class").rank == 1
        with pytest.raises(ValueError, match="needs one split of: 'mean over scenes', 'one-class'; got None"):
            place(97, "shanghaitech", "auc", protocol="one-class")

    def test_ucf_crime(self):
        placement = place(85.3, "ucf-crime", "auc", protocol="weak")
        assert placement.next_above.name == "RTFM (CLIP)"
        assert placement.next_below.name == "RTFM"
        assert [c.value for c in placement.unbeaten] == [86.5]
        assert [c.value for c in placement.beaten] == [81.5, 61.9]

    @pytest.mark.parametrize("group", GROUPS, ids=lambda g: f"{g.dataset}-{g.metric}-{g.protocol}-{g.split}")
    def test_the_best_and_the_worst_of_every_group(self, group):
        rows = leaderboard.ranked(group)
        worst, best = (100, 0) if group.metric == "far" else (0, 100)
        assert len(leaderboard.place_in(group, worst).above) >= len(rows) - 1  # one has a rate of 0 or 100
        assert leaderboard.place_in(group, best).rank == 1
        for row in rows:
            assert row in leaderboard.place_in(group, row.value).tied

    @pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 100.1])
    def test_what_is_no_percentage_is_refused(self, value):
        with pytest.raises(ValueError, match="must lie in 0 to 100 percent, got"):
            place(value, "ucf-crime", "auc", protocol="weak")

    def test_unknown_names_are_answered_with_the_known_ones(self):
        with pytest.raises(ValueError, match=r"dataset 'ucf'; available: ucf-crime, xd-violence, "):
            place(80, "ucf", "auc", protocol="weak")
        with pytest.raises(ValueError, match=r"for tad by metric 'map'; available: ap, auc$"):
            place(80, "tad", "map", protocol="weak")
        with pytest.raises(ValueError, match=r"protocol 'strong'; available: weak, one-class, "):
            place(80, "ucf-crime", "auc", protocol="strong")

    def test_controls_stand_in_a_group_of_their_own_only_where_nothing_else_does(self):
        (group,) = [g for g in GROUPS if g.protocol == "control" and g.dataset == "ucf-crime"]
        assert group == Group("ucf-crime", "auc_macro", "control")
        placement = leaderboard.place_in(group, 60)
        assert (placement.total, [c.value for c in placement.unbeaten]) == (0, [63.3])


class TestTheCommand:
    def test_a_page_fits_80_columns_and_is_plain_in_a_pipe(self, vad):
        done = vad()
        assert done.exit_code == 0
        assert max(len(line) for line in done.stdout.splitlines()) <= 80
        assert "\x1b" not in done.stdout

    def test_every_result_is_on_the_whole_page(self, vad):
        lines = vad().stdout.splitlines()
        for one in ENTRIES:
            assert any(f" {one.value:.2f}" in line and one.name in line for line in lines), one

    def test_unverified_is_marked_and_nothing_else_is(self, vad):
        for group in GROUPS:
            page = vad("--dataset", group.dataset, "--metric", group.metric, "--protocol", group.protocol).stdout
            for row in leaderboard.ranked(group):
                (line,) = [
                    one
                    for one in page.splitlines()
                    if f" {row.name} " in f"{one} " and one.startswith(f"  {row.value:.2f}") and ": " not in one
                ]
                assert ("?" in line.replace("def?", "")) == (row.evidence == "unverified"), line

    def test_footnotes_are_called_and_said_once(self, vad):
        page = vad("--dataset", "ucf-crime", "--metric", "auc").stdout
        assert page.count("Checkpoint chosen on the test set.") == 1
        number = next(line.split()[0].strip("[]") for line in page.splitlines() if "middle of the video" in line)
        (line,) = [line for line in page.splitlines() if " VERA " in line and "86.55" in line]
        assert number in line[line.index("[") :].strip("[]").split()

    def test_sources_are_named_and_so_is_their_absence(self, vad):
        page = " ".join(vad("--dataset", "ucf-crime", "--metric", "auc").stdout.split())
        assert "VadCLIP: AAAI 2024, github.com/nwpu-zxr/VadCLIP" in page
        assert "Original not traced: Anomize," in page

    def test_a_value_stands_in_its_place(self, vad):
        done = vad("--dataset", "ucf-crime", "--protocol", "weak", "--place", "85.3")
        lines = done.stdout.splitlines()
        here = lines.index(next(line for line in lines if line.startswith("> 85.30")))
        assert "85.66 ? RTFM (CLIP)" in lines[here - 1]
        assert "84.30   RTFM" in lines[here + 1]
        page = " ".join(done.stdout.split())
        assert "rank 19 beside 22 published results (18 above, 10 of them unverified;" in page
        assert "85.30 does not beat: perfect video label × centre Gaussian 86.50." in page
        assert "85.30 beats: perfect video label, constant 81.50; centre-of-video Gaussian 61.90." in page

    def test_a_fraction_is_read_as_one_and_it_is_said(self, vad):
        done = vad("--dataset", "ucf-crime", "--place", "0.853")
        assert "0.853 was read as a fraction: 85.30 percent." in done.stdout
        assert "> 0.50 " in vad("--dataset", "ucf-crime", "--metric", "far", "--place", "0.5").stdout

    def test_the_metric_of_a_value_is_the_headline_of_its_benchmark(self, vad):
        assert "| ap: " in vad("--dataset", "xd-violence", "--place", "80").stdout
        assert "| auc: " in vad("--dataset", "shanghaitech", "--place", "80").stdout

    def test_the_two_average_precisions_are_kept_apart(self, vad):
        step = vad("--dataset", "xd-violence", "--metric", "ap", "--place", "80").stdout
        trapezoid = vad("--dataset", "xd-violence", "--metric", "ap_trapezoid", "--place", "80").stdout
        assert "VadCLIP" in step
        assert "VadCLIP" not in trapezoid
        assert "PEL4VAD" in trapezoid
        assert "PEL4VAD" not in step
        assert "of unstated AP definition" in step

    def test_no_control_is_said(self, vad):
        page = " ".join(vad("--dataset", "avenue", "--place", "90").stdout.split())
        assert "No content-free control is published for auc on avenue" in page

    def test_json(self, vad):
        done = json.loads(vad("--dataset", "ucf-crime", "--metric", "auc", "--place", "85.3", "--json").stdout)
        assert {"system", "variant", "value", "evidence", "source", "caveats"} <= set(done["results"][0])
        (weak,) = [one for one in done["placements"] if one["protocol"] == "weak"]
        assert (weak["rank"], weak["published"], weak["value"]) == (19, 22, 85.3)
        assert weak["controls_not_beaten"] == ["perfect video label × centre Gaussian"]
        assert len(json.loads(vad("--json").stdout)["results"]) == len(ENTRIES)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--dataset", "ucf"], ["'ucf'", "ucf-crime", "complexvad"]),
            (["--dataset", "tad", "--metric", "map"], ["'map'", "available: ap, auc"]),
            (["--metric", "recall"], ["'recall'", "auc", "far"]),
            (["--dataset", "tad", "--protocol", "online"], ["'online'", "weak, zero-shot"]),
            (["--place", "80"], ["--place needs --dataset", "ucf-crime"]),
            (["--dataset", "tad", "--place", "nan"], ["0 to 100 percent", "nan"]),
            (["--dataset", "tad", "--place", "101"], ["0 to 100 percent", "101"]),
            (["--dataset", "tad", "--place", "-3"], ["0 to 100 percent", "-3"]),
        ],
    )
    def test_a_mistake_is_answered_with_one_sentence(self, vad, arguments, words):
        done = vad(*arguments)
        assert done.exit_code == 2
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        for word in ("vad: ", *words):
            assert word in line
