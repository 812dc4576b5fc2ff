"""The HTML page of `affekt report`, on runs with made-up predictions."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from affekt.errors import BadConfig
from affekt.evaluation.scores import score
from affekt.reports import results
from affekt.reports.figures.base import CATEGORIES, Figure, new_drawing, slug
from affekt.reports.figures.curves import Curve
from affekt.reports.figures.from_runs import _sweeps, read_scored
from affekt.reports.figures.projection import project
from affekt.reports.page.page import build_sections, html_page
from affekt.reports.page.render import PageSection, Table, Text, render_page
from affekt.reports.page.runs import mistakes_table
from affekt.reports.sections import Options, PageOptions, read_sections
from tests.reports.test_results import SPEAKER_FOLDS, data, make_data, make_runs  # noqa: F401 (a fixture)

pytestmark = pytest.mark.slow  # its fixtures make runs and a page

EVIL = "x|<script>alert(1)</script>![y](http://example.org/i.png)[z](http://example.org)$x_2$"
WITHOUT_MODELS = PageOptions(models=False)


class Outline(HTMLParser):
    """The tags of a page, the addresses in it, its anchors and its text outside of drawings."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.addresses, self.anchors, self.text = [], [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        values = dict(attrs)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        self.anchors += [values["id"]] if "id" in values else []

    def handle_data(self, data):  # noqa: F811
        self.text += data


def page_of(folders, options=WITHOUT_MODELS):
    return html_page(folders, build_sections(read_sections(folders, Options()), options), ["last"])


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    root = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFFEKT_DATA", str(make_data(root / "data")))
        patch.setattr("affekt.evaluation.bootstrap.DRAWS", 200)
        make_runs(root / "runs" / "first", settings=SPEAKER_FOLDS)
        make_runs(root / "runs" / "second", settings=[*SPEAKER_FOLDS, f"name='{EVIL}'"], skill=0.5)
        return page_of([root / "runs"])


def test_the_page_loads_nothing_and_contains_no_script_of_a_name(page):
    outline = Outline(page)
    assert not {"script", "link", "iframe"} & set(outline.tags)
    assert all(address.startswith(("#", "data:image/")) for address in outline.addresses)
    assert not re.search(r"url\((?!#)", page)
    assert EVIL in outline.text


def test_every_link_of_the_page_leads_somewhere_and_no_anchor_occurs_twice(page):
    outline = Outline(page)
    assert {address[1:] for address in outline.addresses if address.startswith("#")} <= set(outline.anchors)
    assert len(set(outline.anchors)) == len(outline.anchors)


def test_a_table_of_the_page_has_as_many_cells_in_each_row(page):
    tables = re.findall(r"<table>(.*?)</table>", page, re.DOTALL)
    assert len(tables) >= 4
    for table in tables:
        rows = [len(re.findall(r"<t[hd]\b", row)) for row in re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)]
        assert len(set(rows)) == 1


def test_drawings_have_no_fixed_color_for_text_and_lines(page):
    drawings = re.findall(r"<svg\b.*?</svg>", page, re.DOTALL)
    assert drawings
    for drawing in drawings:
        assert "currentColor" in drawing
        assert "aria-label" in drawing


def test_corpus_text_is_in_the_page_only_on_request(tmp_path, monkeypatch):
    monkeypatch.setattr("affekt.evaluation.bootstrap.DRAWS", 200)
    folder = make_runs(tmp_path / "runs", skill=0.1)
    sentence = "Don't forget a jacket"
    assert sentence not in page_of([folder])
    assert sentence in Outline(page_of([folder], PageOptions(models=False, embed_text=True))).text


def test_common_mistakes_are_wrong_in_every_prediction(tmp_path):
    folder = make_runs(tmp_path / "runs", skill=1.0)
    (scored,) = read_scored([folder])
    table = mistakes_table([scored], {}, WITHOUT_MODELS)
    wrong = np.all([p.argmax(axis=1) != scored.test.labels for p in scored.test.selected.values()], axis=0)
    expected = {key for key, is_wrong in zip(scored.test.ids, wrong, strict=True) if is_wrong}
    assert f": {len(expected)} of {len(wrong)}" in table.title
    assert {row[0] for row in table.rows} <= expected


def test_a_page_without_runs_is_refused(tmp_path):
    with pytest.raises(BadConfig, match="contains no run"):
        read_sections([tmp_path], Options())


def test_markdown_of_a_page_has_no_links_images_or_html():
    text = render_page("t", [PageSection("s", [Text("<b>x</b> [a](http://e.org) ![b](http://e.org) <http://e.org>")])])
    assert not {"a", "img", "b"} & set(Outline(text).tags[Outline(text).tags.index("section") :])


def test_cells_are_escaped():
    text = render_page("<t>", [PageSection("<s>", [Table("<i>", ["<h>"], [["<c>"]], note="<n>")])])
    assert not {"t", "s", "i", "h", "c", "n"} & set(Outline(text).tags)


def test_a_band_covers_the_runs_that_reach_an_epoch():
    epochs, mean, deviation = Curve((np.array([1.0, 3.0, np.nan]), np.array([3.0]))).band()
    assert epochs.tolist() == [1, 2]
    assert mean.tolist() == [2.0, 3.0]
    assert deviation == pytest.approx([2**0.5, 0.0])


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_a_projection_keeps_clusters_apart_and_is_the_same_every_time(method):
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(40, 8)) + 20 * np.repeat([[0], [1]], 20, axis=0)
    points = project(vectors, method)
    assert points == pytest.approx(project(vectors, method))
    centers = points[:20].mean(axis=0), points[20:].mean(axis=0)
    nearer = [np.linalg.norm(p - centers[0]) < np.linalg.norm(p - centers[1]) for p in points]
    assert nearer == [True] * 20 + [False] * 20


def test_an_unknown_projection_is_refused_with_the_known_ones():
    with pytest.raises(BadConfig, match=r"'tsn'; did you mean 'tsne'\? \(known: tsne, pca, umap\)"):
        project(np.zeros((4, 2)), "tsn")


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_a_figure_is_written_as_the_suffix_says(tmp_path, suffix):
    drawing = new_drawing(1, 1)
    drawing.subplots()
    path = tmp_path / "new" / f"figure{suffix}"
    Figure("figure", "Figure", "", drawing).save(path)
    start = {".svg": b"<?xml", ".png": b"\x89PNG", ".pdf": b"%PDF"}[suffix]
    assert path.read_bytes().startswith(start)


def test_colors_of_categories_can_be_told_apart():
    assert len(set(CATEGORIES)) == len(CATEGORIES)
    assert slug("Confusion, A b/c") == "confusion-a-b-c"


def test_runs_are_scored_once_for_tables_and_figures(tmp_path, monkeypatch):
    num_calls = []
    monkeypatch.setattr(results, "score", lambda *args, **options: num_calls.append(1) or score(*args, **options))
    assert page_of([make_runs(tmp_path / "runs")])
    assert len(num_calls) == 1


def test_a_sweep_has_only_runs_that_differ_in_nothing_else(tmp_path):
    settings = [["model.scales=2"], ["model.scales=3"], ["model.scales=4", "training.strategy.clip=1.0"]]
    folders = [make_runs(tmp_path / str(n), settings=changed, seeds=1) for n, changed in enumerate(settings)]
    ((setting, family),) = _sweeps(read_scored(folders))
    assert setting == "scales"
    assert [model.test.group.config["model"]["scales"] for model in family] == [2, 3]
