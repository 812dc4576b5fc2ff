"""What is told of architecture searches: the table, the verdicts, the page and the drawn cells, on folders made here."""

import dataclasses
import itertools
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from affekt.errors import BadConfig
from affekt.reports import markdown, sections
from affekt.reports.results import Results, Spread, collect_results
from affekt.runs.folder import COMPOSITE_MARKERS, Run
from affekt.runs.groups import _read_speakers_by_id
from affekt.runs.selection import select_epoch
from affekt.search.folder import Round, Search
from affekt.search.report.draw_alphas import draw_mean_weights, softmax_weights
from affekt.search.report.draw_cells import cell_graph, draw_genotype, draw_recurrent_cell, recurrent_graph
from affekt.search.report.graph_layout import HEIGHT, lay_out, monotone
from affekt.search.report.markdown import to_section
from affekt.search.report.networks import A_CELL, FOUND_CELL, FOUND_RECIPE, FUSION, PICKED, SEARCHED
from affekt.search.report.page import search_page
from affekt.search.report.tables import Difference, search_results
from affekt.search.report.verdicts import duration, judged, verdicts
from tests.search.finished import GENOTYPE, GRU, LSTM, OPERATIONS, RECIPE, STAGES, Maker, made_corpus, made_searches

NOTHING = Results([], [])


def page(runs, searches):
    return sections.page([markdown.to_section(runs), to_section(searches)])


@pytest.fixture(scope="module", autouse=True)
def data(tmp_path_factory):
    """Twenty-four actors, and few draws for the intervals."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFFEKT_DATA", str(made_corpus(tmp_path_factory.mktemp("data"))))
        patch.setattr("affekt.evaluation.bootstrap.DRAWS", 200)
        _read_speakers_by_id.cache_clear()
        yield
    _read_speakers_by_id.cache_clear()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Searches that have ended, of two seeds and two folds."""
    return made_searches(tmp_path_factory.mktemp("whole"), folds=("1", "2"), gain=0.6)


@pytest.fixture(scope="module")
def table(whole):
    (found,) = search_results([whole])
    return found


@pytest.fixture(scope="module")
def html(whole):
    return search_page(whole)


def runs(folder, place, seed):
    return [Run(path) for path in sorted(folder.glob(f"fold-*/seed-{seed}/{place}"))]


def answered(several):
    """Labels and answers of a seed's folds together."""
    truth = np.concatenate([run.labels("test") for run in several])
    chosen = [run.predictions(select_epoch(run, "validation"))["test"].argmax(axis=1) for run in several]
    return truth, np.concatenate(chosen)


def test_the_page_of_a_report_is_the_golden_one(whole, golden):
    golden("search-report.md", page(NOTHING, search_results([whole])))


def test_scores_are_over_seeds_with_their_folds_together(whole, table):
    row = table.row("spectrogram", FOUND_CELL)
    by_seed = []
    for seed in (0, 1):
        truth, heard = answered(runs(whole, "spectrogram/found", seed))
        scores = balanced_accuracy_score, accuracy_score, lambda *both: f1_score(*both, average="weighted")
        by_seed.append([score(truth, heard) for score in scores])
    for spread, values in zip((row.UA, row.WA, row.WF1), np.array(by_seed).T, strict=True):
        assert spread.seeds == pytest.approx(values)
        assert spread.mean == pytest.approx(values.mean())
        assert spread.std == pytest.approx(values.std(ddof=1))
    assert row.scores.UA.value == pytest.approx(row.UA.mean)
    assert row.scores.UA.low < row.UA.mean < row.scores.UA.high
    assert (row.seeds, row.networks, row.settings) == ((0, 1), 4, "L = 3, C = 6")
    assert table.people == 24
    assert table.utterances == 24 * 18


def test_a_random_search_gives_its_best_on_the_validation_part(whole, table):
    def on_validation(run):
        heard = run.predictions(select_epoch(run, "validation"))["validation"].argmax(axis=1)
        return balanced_accuracy_score(run.labels("validation"), heard)

    expected = []
    for seed in (0, 1):
        folds = zip(*(runs(whole, f"spectrogram/random/{number:02}", seed) for number in (1, 2, 3)), strict=True)
        expected.append(balanced_accuracy_score(*answered([max(three, key=on_validation) for three in folds])))
    assert table.row("spectrogram", PICKED).UA.seeds == pytest.approx(expected)


def test_a_random_network_is_the_mean_of_all(whole, table):
    row = table.row("spectrogram", A_CELL)
    for seed, value in zip((0, 1), row.UA.seeds, strict=True):
        each = [
            balanced_accuracy_score(*answered(runs(whole, f"spectrogram/random/{number:02}", seed)))
            for number in (1, 2, 3)
        ]
        assert value == pytest.approx(np.mean(each))
    assert row.networks == 2 * 2 * 3


def test_the_search_and_what_it_finds_are_apart_and_named(table):
    places = [(row.branch, row.what) for row in table.rows]
    assert places == [
        ("spectrogram", "supernet"),
        ("spectrogram", "found cell"),
        ("spectrogram", "random search, same budget"),
        ("spectrogram", "a random cell"),
        ("spectrogram", "darts-v2"),
        ("recurrent", "found recipe"),
        ("recurrent", "random search, same budget"),
        ("recurrent", "a random recipe"),
        ("recurrent", "gru"),
        ("recurrent", "lstm"),
        ("fusion", "fusion"),
    ]
    assert table.row("spectrogram", SEARCHED).UA != table.row("spectrogram", FOUND_CELL).UA


def test_differences_are_paired_and_of_the_rows(table):
    pairs = [(one.branch, one.first, one.second) for one in table.differences]
    branches = table.row("spectrogram", FOUND_CELL), table.row("recurrent", FOUND_RECIPE)
    better = max(branches, key=lambda row: row.UA.mean)
    assert pairs == [
        ("spectrogram", FOUND_CELL, PICKED),
        ("recurrent", FOUND_RECIPE, PICKED),
        ("spectrogram", FOUND_CELL, SEARCHED),
        ("spectrogram", FOUND_CELL, "darts-v2"),
        ("recurrent", FOUND_RECIPE, "gru"),
        ("recurrent", FOUND_RECIPE, "lstm"),
        ("fusion", FUSION, better.what),
    ]
    for one in table.differences[:-1]:
        first, second = (table.row(one.branch, what) for what in (one.first, one.second))
        assert one.difference.mean == pytest.approx(first.UA.mean - second.UA.mean)
        assert one.interval[0] < one.difference.mean < one.interval[1]
        assert set(one.by_seed) == {0, 1}
    gain = table.row("fusion", FUSION).UA.mean - better.UA.mean
    assert table.differences[-1].difference.mean == pytest.approx(gain)


def test_parameters_are_those_that_are_learnt(table):
    # stem.0.weight alone: neither statistics nor the architecture's weights.
    assert table.row("spectrogram", SEARCHED).parameters == (18 * 1 * 3 * 3,)
    assert table.row("recurrent", FOUND_RECIPE).parameters == (64 * 40,)


def test_the_cost_is_that_of_all_runs_behind_a_network(table):
    cost = table.row("spectrogram", FOUND_CELL).cost
    assert (cost.runs, cost.epochs, cost.seconds) == (2, 8, 4 * 20 + 4 * 2)
    cost = table.row("spectrogram", PICKED).cost
    assert (cost.runs, cost.epochs, cost.seconds) == (3, 12, 3 * 4 * 6)
    assert table.row("spectrogram", A_CELL).cost.seconds == 4 * 6
    cost = table.row("recurrent", FOUND_RECIPE).cost
    assert (cost.runs, cost.epochs) == (4, 1 + 1 + 2 + 4)
    stages = table.searches[0].stages
    assert table.row("fusion", FUSION).cost.seconds == sum(
        stages[stage].seconds for stage in ("search of the cell", "found cell", "candidate recipes", "fusion")
    )


def test_every_search_says_what_it_found(table):
    assert [one.title for one in table.searches] == [
        "seed 0, fold 1 of 2",
        "seed 0, fold 2 of 2",
        "seed 1, fold 1 of 2",
        "seed 1, fold 2 of 2",
    ]
    for one in table.searches:
        assert one.genotype == GENOTYPE
        assert (one.recipe_name, one.recipe) == ("e4f5a6b7", RECIPE)
        assert (one.skips, one.collapsed) == (1, False)
        assert [entry.epochs for entry in one.rounds] == [1, 2, 4]
        assert one.unfinished == one.missing == ()


@pytest.mark.parametrize("stage", STAGES)
def test_a_search_that_goes_on_gives_what_it_has(tmp_path, stage):
    Maker(tmp_path).up_to(stage)
    (table,) = search_results([tmp_path])
    rows = {"search": 1, "found": 2, "spectrogram": 5, "halving": 6, "recurrent": 10, "fusion": 11}
    assert len(table.rows) == rows[stage]
    text, markdown = search_page(tmp_path), page(NOTHING, [table])
    for told in (text, markdown):
        assert ("Missing, not started or skipped" in told) == (stage != "fusion")
        assert ("The found cell cannot be compared yet" in told) == (stage in ("search", "found"))
    assert (
        text.count("<figure>") == 4 + (stage in ("halving", "recurrent", "fusion")) + 2
    )  # cells, recipe, shares, edges


def test_a_network_in_training_is_in_no_row(tmp_path):
    maker = Maker(tmp_path)
    maker.make_search(epochs=2)
    (table,) = search_results([tmp_path])
    assert not table.rows
    assert table.searches[0].unfinished == ("spectrogram/search: epoch 2 of 4",)
    assert table.searches[0].genotype == GENOTYPE  # as it would be by now
    assert "The search is running" in search_page(tmp_path)
    maker.make_search()
    maker.make_found()
    maker.make_spectrogram()
    maker.derived("spectrogram", "random", "04", genotype=GENOTYPE, skill=9.0, epochs=3)
    (table,) = search_results([tmp_path])
    assert table.row("spectrogram", A_CELL).networks == 3
    assert "spectrogram/random/04: epoch 3 of 4" in page(NOTHING, [table])


def test_candidates_that_a_round_left_behind_are_not_unfinished(tmp_path):
    search = Maker(tmp_path).up_to("halving")
    search.write_rounds(search.rounds[:1])
    (table,) = search_results([tmp_path])
    assert table.searches[0].unfinished == ("recurrent/candidates: 4 candidates, 1 round ended",)
    assert table.row("recurrent", FOUND_RECIPE) is None


def test_the_log_speaks_of_the_cell_that_was_found(tmp_path):
    """It may be that of an earlier epoch than the last."""
    maker = Maker(tmp_path)
    maker.make_search()
    run = maker.search.run("spectrogram", "search")
    line = {**run.log()[-1], "skips": 7, "collapsed": True, "genotype": {**GENOTYPE, "normal": GENOTYPE["reduce"]}}
    del line["epoch"]
    run.record(4, run.predictions(4), line)
    (table,) = search_results([tmp_path])
    assert table.searches[0].collapsed
    maker.search.genotype_path.write_text(json.dumps(GENOTYPE), encoding="utf-8")
    (table,) = search_results([tmp_path])
    assert (table.searches[0].skips, table.searches[0].collapsed) == (1, False)


def test_collapse_cannot_be_missed(tmp_path, html):
    Maker(tmp_path, collapsed=True).up_to("found")
    (table,) = search_results([tmp_path])
    first = verdicts(table)[0]
    assert first.kind == "warning"
    assert first.text.startswith("COLLAPSE to skip connections in 1 of 1 search")
    assert "seed 0, fold 1 of 2: 8 of 8" in first.text
    text = search_page(tmp_path)
    assert text.index('role="alert"') < text.index("<h2>")
    assert "**Warning.** COLLAPSE" in page(NOTHING, [table])
    assert 'role="alert"' not in html


def test_alphas_on_the_part_that_selects_are_noted(tmp_path, html):
    assert "trained on the validation set, which also chooses the epoch" in html
    Maker(tmp_path, alphas_on="half").up_to("search")
    assert "(alphas)" not in search_page(tmp_path)


@pytest.mark.parametrize(
    ("interval", "seeds", "expected"),
    [
        ((0.01, 0.03), (0.02, 0.02), "better"),
        ((-0.03, -0.01), (-0.02, -0.02), "worse"),
        ((-0.01, 0.03), (0.01, 0.01), "open"),
        ((0.01, 0.05), (0.08, -0.01), "open"),  # the seeds disagree, of whom the interval knows nothing
        (None, (0.02, 0.02), "open"),
    ],
)
def test_better_is_what_the_interval_and_every_seed_say(interval, seeds, expected):
    difference = Difference("spectrogram", FOUND_CELL, PICKED, {}, Spread(float(np.mean(seeds)), 0.1, seeds), interval)
    assert judged(difference) == expected


def test_the_first_words_compare_with_random_search(table, html):
    told = {one.text.partition(" (95 %")[0]: one.kind for one in verdicts(table)}
    difference = table.differences[0].difference.mean
    assert (
        told[f"The found cell is better than a random search of the same budget: {100 * difference:+.1f} points of UA"]
        == "better"
    )
    assert html.index("random search of the same budget") < html.index("<h2>")


def test_a_random_search_of_a_smaller_budget_is_no_rival(tmp_path, table):
    assert not any("a fair comparison" in one.text for one in verdicts(table))
    maker = Maker(tmp_path)
    maker.up_to("found")
    maker.derived("spectrogram", "random", "01", genotype=GENOTYPE, skill=1.0)
    (poor,) = search_results([tmp_path])
    said = " ".join(one.text for one in verdicts(poor))
    row, rival = poor.row("spectrogram", "found cell"), poor.row("spectrogram", "random search, same budget")
    share = rival.cost.seconds / row.cost.seconds  # of a cell in seconds: the epochs of its search cost far more
    assert share < 0.75
    assert f"That is {100 * share:.0f} % of its seconds: not yet a fair comparison" in said


def test_what_does_not_belong_together_is_refused(tmp_path, whole):
    with pytest.raises(BadConfig, match=r"seed 0 of emotionnas-cremad is there twice: .*; give one of them"):
        search_results([whole, whole / "fold-1" / "seed-0"])
    with pytest.raises(BadConfig, match=r"no seed has all 2 folds of its search"):
        search_results([whole / "fold-1" / "seed-0", whole / "fold-2" / "seed-1"])
    with pytest.raises(BadConfig, match=r"holds no search that has begun: expected search\.toml and runs"):
        search_page(tmp_path)
    maker = Maker(tmp_path)
    maker.make_search()
    maker.split = dataclasses.replace(
        maker.split, subsets={**maker.split.subsets, "test": maker.split.subsets["test"][1:]}
    )
    maker.make_found()
    with pytest.raises(BadConfig, match=r"found was scored on other utterances than the rest of its search"):
        search_results([tmp_path])


def test_a_seed_without_all_folds_waits(whole):
    folders = [whole / "fold-1", whole / "fold-2" / "seed-0"]
    (table,) = search_results(folders)
    assert {row.seeds for row in table.rows} == {(0,)}
    assert [one.seed for one in table.searches] == [0, 0, 1]


def test_without_the_corpus_it_says_what_it_does_not_know(whole, table, monkeypatch):
    _read_speakers_by_id.cache_clear()
    monkeypatch.delenv("AFFEKT_DATA")
    (unknown,) = search_results([whole])
    assert unknown.people is None
    assert unknown.rows[0].UA == table.rows[0].UA
    assert unknown.differences[0].interval is None
    assert "is unknown" in verdicts(unknown)[0].text
    assert "AFFEKT_DATA, which is not set" in search_page(whole)
    _read_speakers_by_id.cache_clear()


def test_a_searchs_runs_are_no_trainings(whole, table):
    assert collect_results([whole]) == NOTHING
    text = page(collect_results([whole]), search_results([whole]))
    assert text.count("\n## ") == 1
    assert "## Architecture search: emotionnas-cremad, CREMA-D: folds of speakers, 2 folds" in text
    assert f"{table.utterances} utterances of 24 speakers; **speaker-independent**; split {table.split_hash}" in text
    assert str(whole) not in text
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 4
    for lines in blocks:
        assert len({line.count("|") for line in lines}) == 1
    # One of its runs, asked for by itself, is a training as any other.
    (row,) = collect_results([whole / "fold-1" / "seed-0" / "spectrogram" / "found"]).rows
    assert row.name == "spectrogram/found"


def test_the_marker_of_a_search_is_known_to_the_runs():
    assert Search(Path()).config_path.name in COMPOSITE_MARKERS


def test_a_training_beside_a_search_is_one(whole, tmp_path):
    shutil.copytree(whole / "fold-1" / "seed-0", tmp_path / "search")
    shutil.copytree(whole / "fold-1" / "seed-0" / "recurrent" / "known" / "lstm", tmp_path / "training")
    found, searches = collect_results([tmp_path]), search_results([tmp_path])
    assert [row.name for row in found.rows] == ["recurrent/known/lstm"]
    assert found.rows[0].UA.mean == searches[0].row("recurrent", "lstm").UA.mean
    assert page(found, searches).count("\n## ") == 2


def test_the_command_and_the_page_need_no_torch(tmp_path):
    folder = tmp_path / "search"
    Maker(folder).up_to("found")
    code = (
        "import sys; from pathlib import Path\nfrom affekt.cli import app\n"
        "from affekt.search.report.page import search_page\n"
        f"search_page(Path({str(folder)!r}))\n"
        "sys.argv[0] = 'affekt'\ntry: app()\nexcept SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules"
    )
    words = ["report", str(folder), "--output", str(tmp_path / "results.md"), "--json"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (told,) = json.loads(done.stdout)["searches"]
    (table,) = search_results([folder])
    assert told["rows"][1]["UA"]["mean"] == table.rows[1].UA.mean
    assert "## Architecture search: emotionnas-cremad" in Path(tmp_path / "results.md").read_text(encoding="utf-8")


class Balance(HTMLParser):
    """That every element is closed where it was opened."""

    def __init__(self):
        super().__init__()
        self.open, self.links = [], []

    def handle_starttag(self, tag, attributes):
        self.links += [name for name, _ in attributes if name in ("src", "href", "id", "onclick")]
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_stands_alone(html):
    parser = Balance()
    parser.feed(html)
    assert parser.open == []
    assert parser.links == []
    for word in ("<script", "<link", "<img", "@import", "url("):
        assert word not in html
    assert set(re.findall(r"https?://[^\"]*", html)) == {"http://www.w3.org/2000/svg"}
    pictures = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert len(pictures) > 20
    for picture in pictures:
        ElementTree.fromstring(picture)


def test_the_page_has_the_papers_figures_beside_ours(html):
    for printed in ("63.5", "70.3", "72.8", "0.13M", "2.23M", "2.36M", "58.7", "69.4"):
        assert f">{printed}<" in html
    assert "not to be compared" in html


def test_names_are_text_and_no_markup(tmp_path):
    maker = Maker(tmp_path)
    maker.search.config_path.write_text('name = "<b>&"\nseed = 0\n', encoding="utf-8")
    maker.make_search()
    maker.derived("spectrogram", "known", "<i>", genotype=GENOTYPE, skill=1.0)
    text = search_page(tmp_path)
    assert "&lt;b&gt;&amp;" in text
    assert "&lt;i&gt;" in text
    assert "<b>" not in text
    assert "<i>" not in text


def test_a_candidate_that_came_apart_is_shown(tmp_path):
    search = Maker(tmp_path).up_to("halving")
    rounds = search.rounds
    search.write_rounds([Round(1, {**rounds[0].losses, "1b2c3d4e": None}, rounds[0].kept), *rounds[1:]])
    assert "diverged" in search_page(tmp_path)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59, "59 s"), (264, "4 min 24 s"), (3780, "1 h 03 min")]
)
def test_durations_are_for_people(seconds, text):
    assert duration(seconds) == text


def random_genes(generator, nodes):
    genes = []
    for node in range(nodes):
        sources = generator.choice(2 + node, size=2, replace=False)
        genes += [[str(generator.choice(OPERATIONS[1:])), int(source)] for source in sources]
    return genes


def random_recipe(generator, nodes):
    """A recipe of so many nodes, without regard to what is of use."""
    known = ["x", "h_prev_0", "h_prev_1"]
    recipe = {}
    operations = {"linear": 2, "blend": 3, "elementwise_prod": 2, "activation_tanh": 1, "activation_leaky_relu": 1}
    for number in range(nodes):
        name = f"node_{number}" if number < nodes - 2 else f"h_new_{number - nodes + 2}"
        operation = str(generator.choice(list(operations)))
        recipe[name] = {"op": operation, "input": [str(one) for one in generator.choice(known, operations[operation])]}
        known.append(name)
    return recipe


def graphs():
    generator = np.random.default_rng(5)
    cells = [cell_graph(random_genes(generator, nodes)) for nodes in (2, 3, 4, 4, 4, 4, 4, 5, 6)]
    recipes = [recurrent_graph(random_recipe(generator, nodes)) for nodes in (3, 6, 9, 12, 16, 20)]
    return [*cells, *recipes, cell_graph(GENOTYPE["normal"]), *map(recurrent_graph, (RECIPE, LSTM, GRU))]


@pytest.mark.parametrize("graph", graphs())
def test_nothing_drawn_lies_on_anything_else(graph):
    boxes, edges, first, last = graph
    layout = lay_out(boxes, edges, first, last)
    layer_of = {name: number for number, layer in enumerate(layout.layers) for name in layer}
    for layer in layout.layers:
        tops = [(layout.y[one] - layout.height_of(one) / 2, layout.y[one] + layout.height_of(one) / 2) for one in layer]
        for (_, bottom), (top, _) in itertools.pairwise(tops):
            assert top - bottom > 5  # boxes and lines that pass, all apart
    ends = [max(layout.x[one] + layout.width_of(one) for one in layer) for layer in layout.layers]
    starts = [min(layout.x[one] for one in layer) for layer in layout.layers]
    assert all(start - end > 10 for end, start in zip(ends[:-1], starts[1:], strict=True))
    for chain in layout.chains:  # every edge goes a layer to the right at each step
        assert [layer_of[name] for name in chain] == list(range(layer_of[chain[0]], layer_of[chain[-1]] + 1))
    assert {layer_of[name] for name in first} == {0}
    assert {layer_of[name] for name in last} == {len(layout.layers) - 1}


def texts(svg):
    return ["".join(one.itertext()) for one in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_a_drawn_genotype_names_every_operation():
    words = texts(draw_genotype(GENOTYPE))
    for operation in OPERATIONS:
        genes = GENOTYPE["normal"] + GENOTYPE["reduce"]
        assert words.count(operation) == sum(name == operation for name, _ in genes)
    for name in ("ck-2", "ck-1", "0", "1", "2", "3", "ck"):
        assert words.count(name) == 2
    assert words.count("normal cell") == words.count("reduction cell") == 1


def test_a_drawn_recipe_shows_states_and_operations():
    words = texts(draw_recurrent_cell(LSTM))
    assert [words.count(name) for name in ("x", "h_prev_0", "h_prev_1", "h_new_0", "h_new_1")] == [1] * 5
    assert words.count("linear") == 4
    assert words.count("sigmoid") == 3
    assert words.count("tanh") == 2
    assert words.count("\u00d7") == 3
    assert "h_new_1_part1" not in words  # a node, not a state
    assert [words.count(letter) for letter in "zab"] == [0, 0, 0]
    assert [texts(draw_recurrent_cell(GRU)).count(letter) for letter in "zab"] == [1, 1, 1]


def test_drawings_are_the_same_every_time():
    assert draw_genotype(GENOTYPE) == draw_genotype(json.loads(json.dumps(GENOTYPE)))
    assert draw_recurrent_cell(LSTM) == draw_recurrent_cell(dict(LSTM))


def test_an_unused_input_is_drawn_all_the_same():
    genes = [["sep_conv_3x3", 1], ["skip_connect", 1], ["max_pool_3x3", 1], ["max_pool_3x3", 2]]
    assert "ck-2" in texts(draw_genotype({"normal": genes, "reduce": genes}))


def test_boxes_are_wide_enough_for_their_words():
    boxes, *_ = cell_graph(GENOTYPE["normal"])
    assert all(box.width >= 6.5 * len(box.text) for box in boxes.values())
    assert all(box.height <= HEIGHT for box in boxes.values())


def test_monotone_is_the_nearest_rising_sequence():
    assert monotone([1.0, 2.0, 3.0]) == [1.0, 2.0, 3.0]
    assert monotone([3.0, 1.0]) == [2.0, 2.0]
    values = np.random.default_rng(0).normal(size=8)
    best = np.array(monotone(list(values)))
    assert (np.diff(best) >= 0).all()
    for seed in range(200):  # no other one is nearer
        other = np.sort(best + np.random.default_rng(seed).normal(scale=0.3, size=8))
        assert ((best - values) ** 2).sum() <= ((other - values) ** 2).sum()


def test_shares_are_the_softmax_of_the_log(whole):
    log = Run(whole / "fold-1" / "seed-0" / "spectrogram" / "search").log()
    shares = softmax_weights(log, "reduce")
    assert shares.shape == (4, 14, 8)
    np.testing.assert_allclose(shares[2], softmax(np.array(log[2]["alphas"]["reduce"]), axis=1))
    picture = ElementTree.fromstring(draw_mean_weights(shares, "shares"))
    heights = [
        float(one.get("y")) for one in picture.iter("{http://www.w3.org/2000/svg}text") if one.text in OPERATIONS
    ]
    assert len(heights) == 8
    assert np.diff(sorted(heights)).min() > 12  # names do not lie on one another
