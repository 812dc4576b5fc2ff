"""The report of an architecture search, on generated folders: tables, verdicts, HTML page and drawings."""

import dataclasses
import itertools
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from affekt.errors import BadConfig
from affekt.evaluation.spread import Spread
from affekt.reports import markdown, sections
from affekt.reports.page.page import build_sections, html_page
from affekt.reports.results import Results, collect_results
from affekt.reports.sections import Options, PageOptions, read_sections
from affekt.runs.folder import COMPOSITE_MARKERS, Run
from affekt.runs.groups import _read_by_id
from affekt.runs.selection import select_epoch
from affekt.search.folder import Round, Search
from affekt.search.report.draw_alphas import draw_mean_weights, softmax_weights
from affekt.search.report.draw_cells import draw_genotype, draw_recurrent_cell, genotype_graph, recurrent_graph
from affekt.search.report.graph_layout import BOX_HEIGHT, lay_out, monotone
from affekt.search.report.html_tables import compare_conditions
from affekt.search.report.markdown import to_section
from affekt.search.report.networks import (
    FOUND_CELL,
    FOUND_RECURRENT_CELL,
    FUSION,
    RANDOM_CELL,
    RANDOM_SEARCH,
    SUPERNET,
)
from affekt.search.report.page import search_page
from affekt.search.report.tables import Difference, collect_searches
from affekt.search.report.verdicts import format_duration, judge, verdicts
from tests.samples_of_tables import mostly_slow
from tests.search.finished import (
    GENOTYPE,
    GRU,
    LSTM,
    OPERATIONS,
    RECIPE,
    STAGES,
    SearchMaker,
    make_corpus,
    make_searches,
)

NO_RESULTS = Results([], [])


def markdown_page(results, searches):
    return sections.page([markdown.to_section(results), to_section(searches)])


@pytest.fixture(scope="module", autouse=True)
def data(tmp_path_factory):
    """A corpus of 24 actors, and few bootstrap samples for the intervals."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFFEKT_DATA", str(make_corpus(tmp_path_factory.mktemp("data"))))
        patch.setattr("affekt.evaluation.bootstrap.DRAWS", 200)
        _read_by_id.cache_clear()
        yield
    _read_by_id.cache_clear()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Finished searches of two seeds and two folds."""
    return make_searches(tmp_path_factory.mktemp("finished"), folds=("1", "2"), gain=0.6)


@pytest.fixture(scope="module")
def table(finished):
    (table,) = collect_searches([finished])
    return table


@pytest.fixture(scope="module")
def html(finished):
    return search_page(finished)


def find_runs(folder, path, seed):
    return [Run(run) for run in sorted(folder.glob(f"fold-*/seed-{seed}/{path}"))]


def labels_and_predictions(runs):
    """Return the true and the predicted labels of a seed's folds together."""
    labels = np.concatenate([run.labels("test") for run in runs])
    by_fold = [run.predictions(select_epoch(run, "validation"))["test"].argmax(axis=1) for run in runs]
    return labels, np.concatenate(by_fold)


@pytest.mark.slow
def test_the_markdown_page_equals_the_golden_file(finished, golden):
    golden("search-report.md", markdown_page(NO_RESULTS, collect_searches([finished])))


@pytest.mark.slow
def test_scores_are_over_seeds_with_all_folds_together(finished, table):
    row = table.row("spectrogram", FOUND_CELL)
    by_seed = []
    for seed in (0, 1):
        labels, predicted = labels_and_predictions(find_runs(finished, "spectrogram/found", seed))
        scores = balanced_accuracy_score, accuracy_score, lambda *both: f1_score(*both, average="weighted")
        by_seed.append([score(labels, predicted) for score in scores])
    for spread, values in zip((row.UA, row.WA, row.WF1), np.array(by_seed).T, strict=True):
        assert spread.seeds == pytest.approx(values)
        assert spread.mean == pytest.approx(values.mean())
        assert spread.std == pytest.approx(values.std(ddof=1))
    assert row.scores.UA.value == pytest.approx(row.UA.mean)
    assert row.scores.UA.low < row.UA.mean < row.scores.UA.high
    assert (row.seeds, row.networks, row.settings) == ((0, 1), 4, "L = 3, C = 6")
    assert table.speakers == 24
    assert table.utterances == 24 * 18


@pytest.mark.slow
def test_a_random_search_reports_its_best_network_on_the_validation_set(finished, table):
    def validation_ua(run):
        predicted = run.predictions(select_epoch(run, "validation"))["validation"].argmax(axis=1)
        return balanced_accuracy_score(run.labels("validation"), predicted)

    expected = []
    for seed in (0, 1):
        folds = zip(
            *(find_runs(finished, f"spectrogram/random/{number:02}", seed) for number in (1, 2, 3)), strict=True
        )
        expected.append(
            balanced_accuracy_score(*labels_and_predictions([max(networks, key=validation_ua) for networks in folds]))
        )
    assert table.row("spectrogram", RANDOM_SEARCH).UA.seeds == pytest.approx(expected)


@pytest.mark.slow
def test_the_row_of_a_random_cell_is_the_mean_over_all_random_cells(finished, table):
    row = table.row("spectrogram", RANDOM_CELL)
    for seed, value in zip((0, 1), row.UA.seeds, strict=True):
        scores = [
            balanced_accuracy_score(
                *labels_and_predictions(find_runs(finished, f"spectrogram/random/{number:02}", seed))
            )
            for number in (1, 2, 3)
        ]
        assert value == pytest.approx(np.mean(scores))
    assert row.networks == 2 * 2 * 3


@pytest.mark.slow
def test_supernet_and_found_network_have_separate_rows(table):
    assert [(row.branch, row.network) for row in table.rows] == [
        ("spectrogram", "supernet"),
        ("spectrogram", "found cell"),
        ("spectrogram", "random search, same budget"),
        ("spectrogram", "a random cell"),
        ("spectrogram", "darts-v2"),
        ("recurrent", "found recurrent cell"),
        ("recurrent", "random search, same budget"),
        ("recurrent", "a random recurrent cell"),
        ("recurrent", "gru"),
        ("recurrent", "lstm"),
        ("fusion", "fusion"),
    ]
    assert table.row("spectrogram", SUPERNET).UA != table.row("spectrogram", FOUND_CELL).UA


@pytest.mark.slow
def test_differences_equal_those_of_the_rows(table):
    pairs = [(difference.branch, difference.first, difference.second) for difference in table.differences]
    branches = table.row("spectrogram", FOUND_CELL), table.row("recurrent", FOUND_RECURRENT_CELL)
    better = max(branches, key=lambda row: row.UA.mean)
    assert pairs == [
        ("spectrogram", FOUND_CELL, RANDOM_SEARCH),
        ("recurrent", FOUND_RECURRENT_CELL, RANDOM_SEARCH),
        ("spectrogram", FOUND_CELL, SUPERNET),
        ("spectrogram", FOUND_CELL, "darts-v2"),
        ("recurrent", FOUND_RECURRENT_CELL, "gru"),
        ("recurrent", FOUND_RECURRENT_CELL, "lstm"),
        ("fusion", FUSION, better.network),
    ]
    for difference in table.differences[:-1]:
        first, second = (table.row(difference.branch, network) for network in (difference.first, difference.second))
        assert difference.difference.mean == pytest.approx(first.UA.mean - second.UA.mean)
        assert difference.interval[0] < difference.difference.mean < difference.interval[1]
        assert set(difference.by_seed) == {0, 1}
    gain = table.row("fusion", FUSION).UA.mean - better.UA.mean
    assert table.differences[-1].difference.mean == pytest.approx(gain)


@pytest.mark.slow
def test_parameters_exclude_statistics_and_architecture_weights(table):
    # stem.0.weight alone: neither statistics nor the architecture's weights.
    assert table.row("spectrogram", SUPERNET).parameters == (18 * 1 * 3 * 3,)
    assert table.row("recurrent", FOUND_RECURRENT_CELL).parameters == (64 * 40,)


@pytest.mark.slow
def test_the_cost_of_a_network_includes_its_search(table):
    cost = table.row("spectrogram", FOUND_CELL).cost
    assert (cost.runs, cost.epochs, cost.seconds) == (2, 8, 4 * 20 + 4 * 2)
    cost = table.row("spectrogram", RANDOM_SEARCH).cost
    assert (cost.runs, cost.epochs, cost.seconds) == (3, 12, 3 * 4 * 6)
    assert table.row("spectrogram", RANDOM_CELL).cost.seconds == 4 * 6
    cost = table.row("recurrent", FOUND_RECURRENT_CELL).cost
    assert (cost.runs, cost.epochs) == (4, 1 + 1 + 2 + 4)
    stages = table.searches[0].stages
    assert table.row("fusion", FUSION).cost.seconds == sum(
        stages[stage].seconds for stage in ("cell search", "found cell", "candidate recurrent cells", "fusion")
    )


@pytest.mark.slow
def test_every_search_has_its_genotype_and_recurrent_cell(table):
    assert [search.title for search in table.searches] == [
        "seed 0, fold 1 of 2",
        "seed 0, fold 2 of 2",
        "seed 1, fold 1 of 2",
        "seed 1, fold 2 of 2",
    ]
    for search in table.searches:
        assert search.genotype == GENOTYPE
        assert (search.recipe_name, search.recipe) == ("e4f5a6b7", RECIPE)
        assert (search.skips, search.collapsed) == (1, False)
        assert [entry.epochs for entry in search.rounds] == [1, 2, 4]
        assert search.unfinished == search.missing == ()


@pytest.mark.parametrize("stage", mostly_slow(STAGES, 3))
def test_an_unfinished_search_has_the_rows_of_its_finished_stages(tmp_path, stage):
    SearchMaker(tmp_path).up_to(stage)
    (table,) = collect_searches([tmp_path])
    rows = {"search": 1, "found": 2, "spectrogram": 5, "halving": 6, "recurrent": 10, "fusion": 11}
    assert len(table.rows) == rows[stage]
    html, text = search_page(tmp_path), markdown_page(NO_RESULTS, [table])
    for page in (html, text):
        assert ("Missing, because not started or skipped" in page) == (stage != "fusion")
        assert ("The found cell cannot be compared yet" in page) == (stage in ("search", "found"))
    # Two cells, perhaps a recurrent cell, two plots of mean weights, two of single edges.
    assert html.count("<figure>") == 2 + (stage in ("halving", "recurrent", "fusion")) + 4


@pytest.mark.slow
def test_an_unfinished_run_is_in_no_row(tmp_path):
    maker = SearchMaker(tmp_path)
    maker.make_search(epochs=2)
    (table,) = collect_searches([tmp_path])
    assert not table.rows
    assert table.searches[0].unfinished == ("spectrogram/search: epoch 2 of 4",)
    assert table.searches[0].genotype == GENOTYPE  # of the latest epoch
    assert "The search is running" in search_page(tmp_path)
    maker.make_search()
    maker.make_found()
    maker.make_spectrogram()
    maker.derived("spectrogram", "random", "04", genotype=GENOTYPE, skill=9.0, epochs=3)
    (table,) = collect_searches([tmp_path])
    assert table.row("spectrogram", RANDOM_CELL).networks == 3
    assert "spectrogram/random/04: epoch 3 of 4" in markdown_page(NO_RESULTS, [table])


@pytest.mark.slow
def test_eliminated_candidates_are_not_unfinished(tmp_path):
    search = SearchMaker(tmp_path).up_to("halving")
    search.write_rounds(search.rounds[:1])
    (table,) = collect_searches([tmp_path])
    assert table.searches[0].unfinished == ("recurrent/candidates: 4 candidates, 1 round finished",)
    assert table.row("recurrent", FOUND_RECURRENT_CELL) is None


@pytest.mark.slow
def test_skips_and_collapse_are_those_of_the_found_cell(tmp_path):
    """The found cell may be from an earlier epoch than the last."""
    maker = SearchMaker(tmp_path)
    maker.make_search()
    run = maker.search.run("spectrogram", "search")
    line = {**run.log()[-1], "skips": 7, "collapsed": True, "genotype": {**GENOTYPE, "normal": GENOTYPE["reduce"]}}
    del line["epoch"]
    run.record(4, run.predictions(4), line)
    (table,) = collect_searches([tmp_path])
    assert table.searches[0].collapsed
    maker.search.genotype_path.write_text(json.dumps(GENOTYPE), encoding="utf-8")
    (table,) = collect_searches([tmp_path])
    assert (table.searches[0].skips, table.searches[0].collapsed) == (1, False)


@pytest.mark.slow
def test_a_collapse_is_the_first_warning(tmp_path, html):
    SearchMaker(tmp_path, collapsed=True).up_to("found")
    (table,) = collect_searches([tmp_path])
    first = verdicts(table)[0]
    assert first.kind == "warning"
    assert first.text.startswith("COLLAPSE to skip connections in 1 of 1 search")
    assert "seed 0, fold 1 of 2: 8 of 8" in first.text
    text = search_page(tmp_path)
    assert text.index('role="alert"') < text.index("<h2>")
    assert "**Warning.** COLLAPSE" in markdown_page(NO_RESULTS, [table])
    assert 'role="alert"' not in html


@pytest.mark.slow
def test_alphas_trained_on_the_validation_set_are_noted(tmp_path, html):
    assert "trained on the validation subset, which also selects the epoch" in html
    SearchMaker(tmp_path, alphas_on="half").up_to("search")
    assert "(alphas)" not in search_page(tmp_path)


@pytest.mark.parametrize(
    ("interval", "seeds", "expected"),
    [
        ((0.01, 0.03), (0.02, 0.02), "better"),
        ((-0.03, -0.01), (-0.02, -0.02), "worse"),
        ((-0.01, 0.03), (0.01, 0.01), "open"),
        ((0.01, 0.05), (0.08, -0.01), "open"),  # the seeds disagree; the interval does not cover seeds
        (None, (0.02, 0.02), "open"),
    ],
)
def test_better_requires_the_interval_and_every_seed(interval, seeds, expected):
    difference = Difference(
        "spectrogram", FOUND_CELL, RANDOM_SEARCH, {}, Spread(float(np.mean(seeds)), 0.1, seeds), interval
    )
    assert judge(difference) == expected


@pytest.mark.slow
def test_the_first_verdict_compares_with_random_search(table, html):
    kinds = {verdict.text.partition(" (95 %")[0]: verdict.kind for verdict in verdicts(table)}
    points = f"{100 * table.differences[0].difference.mean:+.1f} points of UA"
    assert kinds[f"The found cell is better than a random search with the same budget: {points}"] == "better"
    assert html.index("random search with the same budget") < html.index("<h2>")


@pytest.mark.slow
def test_a_random_search_with_a_smaller_budget_is_not_a_fair_comparison(tmp_path, table):
    assert not any("a fair comparison" in verdict.text for verdict in verdicts(table))
    maker = SearchMaker(tmp_path)
    maker.up_to("found")
    maker.derived("spectrogram", "random", "01", genotype=GENOTYPE, skill=1.0)
    (table,) = collect_searches([tmp_path])
    text = " ".join(verdict.text for verdict in verdicts(table))
    found_row, random_row = table.row("spectrogram", FOUND_CELL), table.row("spectrogram", RANDOM_SEARCH)
    fraction = (
        random_row.cost.seconds / found_row.cost.seconds
    )  # not epochs, because those of the supernet cost far more
    assert fraction < 0.75
    expected = f"The random search had {100 * fraction:.0f} % of the search's seconds: not yet a fair comparison"
    assert expected in text


@pytest.mark.slow
def test_folders_that_do_not_form_a_search_are_refused(tmp_path, finished):
    with pytest.raises(BadConfig, match=r"seed 0 of emotionnas-cremad occurs twice: .*; name only one of them"):
        collect_searches([finished, finished / "fold-1" / "seed-0"])
    with pytest.raises(BadConfig, match=r"no seed has all 2 folds of its search; name only the searches of one fold"):
        collect_searches([finished / "fold-1" / "seed-0", finished / "fold-2" / "seed-1"])
    with pytest.raises(BadConfig, match=r"contains no search that has begun: expected search\.toml and runs"):
        search_page(tmp_path)
    maker = SearchMaker(tmp_path)
    maker.make_search()
    maker.split = dataclasses.replace(
        maker.split, subsets={**maker.split.subsets, "test": maker.split.subsets["test"][1:]}
    )
    maker.make_found()
    with pytest.raises(BadConfig, match=r"found was scored on other utterances than the rest of its search"):
        collect_searches([tmp_path])


@pytest.mark.slow
def test_a_seed_without_all_folds_is_in_no_row(finished):
    folders = [finished / "fold-1", finished / "fold-2" / "seed-0"]
    (table,) = collect_searches(folders)
    assert {row.seeds for row in table.rows} == {(0,)}
    assert [search.seed for search in table.searches] == [0, 0, 1]


@pytest.mark.slow
def test_without_the_corpus_the_speakers_are_unknown(finished, table, monkeypatch):
    _read_by_id.cache_clear()
    monkeypatch.delenv("AFFEKT_DATA")
    (unknown,) = collect_searches([finished])
    assert unknown.speakers is None
    assert unknown.rows[0].UA == table.rows[0].UA
    assert unknown.differences[0].interval is None
    assert "is unknown" in verdicts(unknown)[0].text
    assert "AFFEKT_DATA, which is not set" in search_page(finished)
    _read_by_id.cache_clear()


@pytest.mark.slow
def test_runs_of_a_search_are_not_reported_as_separate_runs(finished, table):
    assert collect_results([finished]) == NO_RESULTS
    text = markdown_page(collect_results([finished]), collect_searches([finished]))
    assert text.count("\n## ") == 1
    assert "## Architecture search: emotionnas-cremad, CREMA-D: folds of speakers, seed 0, 2 folds" in text
    assert f"{table.utterances} utterances of 24 speakers; **speaker-independent**; split {table.split_hash}" in text
    assert str(finished) not in text
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 4
    for lines in blocks:
        assert len({line.count("|") for line in lines}) == 1
    # If its folder is given, a run of a search is reported like any other run.
    (row,) = collect_results([finished / "fold-1" / "seed-0" / "spectrogram" / "found"]).rows
    assert row.name == "spectrogram/found"


def test_search_toml_is_a_marker_of_composite_folders():
    assert Search(Path()).config_path.name in COMPOSITE_MARKERS


@pytest.mark.slow
def test_a_run_beside_a_search_is_reported_separately(finished, tmp_path):
    shutil.copytree(finished / "fold-1" / "seed-0", tmp_path / "search")
    shutil.copytree(finished / "fold-1" / "seed-0" / "recurrent" / "known" / "lstm", tmp_path / "training")
    results, searches = collect_results([tmp_path]), collect_searches([tmp_path])
    assert [row.name for row in results.rows] == ["recurrent/known/lstm"]
    assert results.rows[0].UA.mean == searches[0].row("recurrent", "lstm").UA.mean
    assert markdown_page(results, searches).count("\n## ") == 2


@pytest.mark.slow
def test_the_report_page_has_a_section_for_each_search(finished):
    sections = build_sections(read_sections([finished], Options()), PageOptions(models=False))
    text = html_page([finished], sections, ["validation"])
    assert [section.title for section in sections] == ["Architecture search: emotionnas-cremad"]
    assert text.count("<h1>") == 1
    assert text.count('id="architecture-search-emotionnas-cremad"') == 1
    assert text.count("<svg") == search_page(finished).count("<svg") > 0


@pytest.mark.slow
def test_the_report_command_and_the_page_do_not_import_torch(tmp_path):
    folder = tmp_path / "search"
    SearchMaker(folder).up_to("found")
    code = (
        "import sys; from pathlib import Path\nfrom affekt.cli import app\n"
        "from affekt.search.report.page import search_page\n"
        f"search_page(Path({str(folder)!r}))\n"
        "sys.argv[0] = 'affekt'\ntry: app()\nexcept SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules"
    )
    arguments = ["report", str(folder), "--output", str(tmp_path / "results.md"), "--json"]
    process = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    (report,) = json.loads(process.stdout)["searches"]
    (table,) = collect_searches([folder])
    assert report["rows"][1]["UA"]["mean"] == table.rows[1].UA.mean
    assert "## Architecture search: emotionnas-cremad" in Path(tmp_path / "results.md").read_text(encoding="utf-8")


class ElementChecker(HTMLParser):
    """Checks that every element is closed, and collects attributes that refer to something outside the page."""

    def __init__(self):
        super().__init__()
        self.open, self.references = [], []

    def handle_starttag(self, tag, attributes):
        self.references += [
            name
            for name, value in attributes
            if name in ("src", "href", "id", "onclick") and value not in ("#content", "content")
        ]
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.slow
def test_the_page_is_self_contained(html):
    parser = ElementChecker()
    parser.feed(html)
    assert parser.open == []
    assert parser.references == []
    for forbidden in ("<script", "<link", "<img", "@import", "url("):
        assert forbidden not in html
    assert set(re.findall(r"https?://[^\"]*", html)) == {"http://www.w3.org/2000/svg"}
    pictures = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert len(pictures) > 20
    for picture in pictures:
        ElementTree.fromstring(picture)


@pytest.mark.slow
def test_the_page_lists_the_papers_results(html):
    for figure in ("63.5", "70.3", "72.8", "0.13M", "2.23M", "2.36M", "58.7", "69.4"):
        assert f">{figure}<" in html
    assert "cannot be compared" in html


@pytest.mark.slow
def test_names_are_escaped_in_html(tmp_path):
    maker = SearchMaker(tmp_path)
    maker.search.config_path.write_text('name = "<b>&"\nseed = 0\n', encoding="utf-8")
    maker.make_search()
    maker.derived("spectrogram", "known", "<i>", genotype=GENOTYPE, skill=1.0)
    text = search_page(tmp_path)
    assert "&lt;b&gt;&amp;" in text
    assert "&lt;i&gt;" in text
    assert "<b>" not in text
    assert "<i>" not in text


@pytest.mark.slow
def test_a_diverged_candidate_is_shown(tmp_path):
    search = SearchMaker(tmp_path).up_to("halving")
    rounds = search.rounds
    search.write_rounds([Round(1, {**rounds[0].losses, "1b2c3d4e": None}, rounds[0].kept), *rounds[1:]])
    assert "diverged" in search_page(tmp_path)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59, "59 s"), (264, "4 min 24 s"), (3780, "1 h 03 min")]
)
def test_durations_are_formatted(seconds, text):
    assert format_duration(seconds) == text


def random_genes(generator, nodes):
    genes = []
    for node in range(nodes):
        sources = generator.choice(2 + node, size=2, replace=False)
        genes += [[str(generator.choice(OPERATIONS[1:])), int(source)] for source in sources]
    return genes


def random_recurrent_cell(generator, nodes):
    """Return a cell graph of this many nodes, of which some may be unused."""
    sources = ["x", "h_prev_0", "h_prev_1"]
    recipe = {}
    operations = {"linear": 2, "blend": 3, "elementwise_prod": 2, "activation_tanh": 1, "activation_leaky_relu": 1}
    for number in range(nodes):
        name = f"node_{number}" if number < nodes - 2 else f"h_new_{number - nodes + 2}"
        operation = str(generator.choice(list(operations)))
        recipe[name] = {
            "op": operation,
            "input": [str(source) for source in generator.choice(sources, operations[operation])],
        }
        sources.append(name)
    return recipe


def graphs():
    generator = np.random.default_rng(5)
    cells = [genotype_graph(random_genes(generator, nodes)) for nodes in (2, 3, 4, 4, 4, 4, 4, 5, 6)]
    recipes = [recurrent_graph(random_recurrent_cell(generator, nodes)) for nodes in (3, 6, 9, 12, 16, 20)]
    return [*cells, *recipes, genotype_graph(GENOTYPE["normal"]), *map(recurrent_graph, (RECIPE, LSTM, GRU))]


@pytest.mark.parametrize("graph", graphs())
def test_boxes_and_edges_do_not_overlap(graph):
    boxes, edges, first, last = graph
    layout = lay_out(boxes, edges, first, last)
    layer_of = {name: number for number, layer in enumerate(layout.layers) for name in layer}
    for layer in layout.layers:
        sides = [
            (layout.y[name] - layout.height_of(name) / 2, layout.y[name] + layout.height_of(name) / 2) for name in layer
        ]
        for (_, bottom), (top, _) in itertools.pairwise(sides):
            assert top - bottom > 5  # between boxes, and lines that cross the layer
    ends = [max(layout.x[name] + layout.width_of(name) for name in layer) for layer in layout.layers]
    starts = [min(layout.x[name] for name in layer) for layer in layout.layers]
    assert all(start - end > 10 for end, start in zip(ends[:-1], starts[1:], strict=True))
    for chain in layout.chains:  # each step of an edge leads to the next layer
        assert [layer_of[name] for name in chain] == list(range(layer_of[chain[0]], layer_of[chain[-1]] + 1))
    assert {layer_of[name] for name in first} == {0}
    assert {layer_of[name] for name in last} == {len(layout.layers) - 1}


def texts(svg):
    return [
        "".join(element.itertext()) for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    ]


def test_the_drawing_of_a_genotype_names_every_operation():
    labels = texts(draw_genotype(GENOTYPE))
    for operation in OPERATIONS:
        genes = GENOTYPE["normal"] + GENOTYPE["reduce"]
        assert labels.count(operation) == sum(name == operation for name, _ in genes)
    for name in ("ck-2", "ck-1", "0", "1", "2", "3", "ck"):
        assert labels.count(name) == 2
    assert labels.count("normal cell") == labels.count("reduction cell") == 1


def test_the_drawing_of_a_recurrent_cell_shows_states_and_operations():
    labels = texts(draw_recurrent_cell(LSTM))
    assert [labels.count(name) for name in ("x", "h_prev_0", "h_prev_1", "h_new_0", "h_new_1")] == [1] * 5
    assert labels.count("linear") == 4
    assert labels.count("sigmoid") == 3
    assert labels.count("tanh") == 2
    assert labels.count("\u00d7") == 3
    assert "h_new_1_part1" not in labels  # a node, not a state
    assert [labels.count(letter) for letter in "zab"] == [0, 0, 0]
    assert [texts(draw_recurrent_cell(GRU)).count(letter) for letter in "zab"] == [1, 1, 1]


def test_drawings_are_reproducible():
    assert draw_genotype(GENOTYPE) == draw_genotype(json.loads(json.dumps(GENOTYPE)))
    assert draw_recurrent_cell(LSTM) == draw_recurrent_cell(dict(LSTM))


def test_an_unused_input_is_drawn():
    genes = [["sep_conv_3x3", 1], ["skip_connect", 1], ["max_pool_3x3", 1], ["max_pool_3x3", 2]]
    assert "ck-2" in texts(draw_genotype({"normal": genes, "reduce": genes}))


def test_boxes_are_wide_enough_for_their_text():
    boxes, *_ = genotype_graph(GENOTYPE["normal"])
    assert all(box.width >= 6.5 * len(box.text) for box in boxes.values())
    assert all(box.height <= BOX_HEIGHT for box in boxes.values())


def test_monotone_returns_the_closest_non_decreasing_sequence():
    assert monotone([1.0, 2.0, 3.0]) == [1.0, 2.0, 3.0]
    assert monotone([3.0, 1.0]) == [2.0, 2.0]
    values = np.random.default_rng(0).normal(size=8)
    best = np.array(monotone(list(values)))
    assert (np.diff(best) >= 0).all()
    for seed in range(200):  # no other non-decreasing sequence is closer
        other = np.sort(best + np.random.default_rng(seed).normal(scale=0.3, size=8))
        assert ((best - values) ** 2).sum() <= ((other - values) ** 2).sum()


@pytest.mark.slow
def test_plotted_weights_are_the_softmax_of_the_logged_alphas(finished):
    log = Run(finished / "fold-1" / "seed-0" / "spectrogram" / "search").log()
    weights = softmax_weights(log, "reduce")
    assert weights.shape == (4, 14, 8)
    np.testing.assert_allclose(weights[2], softmax(np.array(log[2]["alphas"]["reduce"]), axis=1))
    picture = ElementTree.fromstring(draw_mean_weights(weights, "weights"))
    heights = [
        float(label.get("y")) for label in picture.iter("{http://www.w3.org/2000/svg}text") if label.text in OPERATIONS
    ]
    assert len(heights) == 8
    assert np.diff(sorted(heights)).min() > 12  # the labels do not overlap


def test_the_papers_figures_are_called_those_of_another_corpus_only_if_they_are():
    paper = SimpleNamespace(title="IEMOCAP", labels="iemocap-improvised-4", protocol="EmotionNAS's folds, 5 folds")
    assert "for the same corpus, label set and protocol" in compare_conditions(paper)
    paper.protocol = "leave one session out, 5 folds"
    assert "for another protocol (IEMOCAP" in compare_conditions(paper)
    paper.title, paper.labels = "EmoDB", "emodb-7"
    assert "for another corpus, label set and protocol (IEMOCAP" in compare_conditions(paper)
