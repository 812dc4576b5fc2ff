"""The figure of attention, with vanilla beside key-sparse attention, and its errors."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from affekt.errors import BadConfig, BadOutput
from affekt.reports.figures.attention import Axis, draw_attention, token_words

TEXT = "OK, look, a beautiful day."
WORDS = [-1, 0, 0, 1, 2, 3, 4, -1]
TOKENS = Axis("text", 8, token_words(TEXT, WORDS))


@pytest.fixture
def arrays():
    generator = np.random.default_rng(0)
    vanilla = generator.dirichlet(np.ones(10), size=(3, 2, 9))
    kept = np.zeros((3, 2, 10), bool)
    kept[..., [1, 3, 5]] = True
    return {"weights": vanilla, "sparse": vanilla * kept[:, :, None], "kept": kept}


def test_tokens_are_labeled_with_their_words():
    assert token_words(TEXT, WORDS) == ["-", "OK,", "·", "look,", "a", "beautiful", "day.", "-"]
    assert token_words("no no", [0, 1]) == ["no", "no"]


@pytest.mark.slow
@pytest.mark.parametrize("head", [None, 1])
def test_the_figure_has_the_words_of_queries_and_keys_and_both_kinds_of_attention(arrays, head):
    figure = draw_attention(**arrays, queries=TOKENS, keys=TOKENS, head=head, title="a title")
    svg = figure.svg()
    assert all(
        f">{text}<" in svg for text in ("vanilla", "key-sparse", "kept", "weight", "keys: text", "queries: text")
    )
    assert svg.count(">beautiful<") == 3  # below both panels, and left of the first


def test_axes_name_the_stream_in_seconds_and_padding_is_cut(arrays):
    keys = Axis("speech", 6, duration=0.12, waveform=np.sin(np.arange(1920)))
    figure = draw_attention(**arrays, queries=TOKENS, keys=keys, title="t")
    cells = next(axes for axes in figure.drawing.axes if axes.get_xlabel() == "keys: speech, seconds" and axes.images)
    assert cells.get_xlim() == (0, 0.12)
    panels = [axes for axes in figure.drawing.axes if axes.images]
    sparse = panels[-1].images[0].get_array()
    assert sparse.shape == (8, 6)
    assert (~np.ma.getmaskarray(np.ma.masked_invalid(sparse))).all(axis=0).tolist() == [False, True] * 3
    np.testing.assert_allclose(panels[0].images[0].get_array(), arrays["weights"][-1, :, :8, :6].mean(axis=0))


def test_attention_that_keeps_all_keys_has_one_panel(arrays):
    figure = draw_attention(arrays["weights"], queries=TOKENS, keys=Axis("speech", 10), title="t")
    assert len([axes for axes in figure.drawing.axes if axes.images]) == 1
    assert ">keys: speech, frames<" in figure.svg()


def test_a_png_is_written_without_pyplot(arrays, tmp_path):
    before = "matplotlib.pyplot" in sys.modules
    draw_attention(**arrays, queries=TOKENS, keys=TOKENS, layer=0, title="t").save(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert ("matplotlib.pyplot" in sys.modules) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queries": replace(TOKENS, frames=10)}, "text has 10 frames, but the attention has 9 queries"),
        ({"keys": Axis("speech", 0)}, "speech has 0 frames"),
        ({"queries": Axis("text", 8, ["one", "two"])}, "2 words for 8 frames of text"),
        ({"head": 2}, "head 2 does not exist: expected 0 to 1"),
        ({"layer": 3}, "layer 3 does not exist: expected 0 to 2"),
    ],
)
def test_invalid_arguments_are_refused(arrays, options, message):
    with pytest.raises(BadConfig, match=message):
        draw_attention(**arrays, **{"queries": TOKENS, "keys": TOKENS, "title": "t", **options})


def test_an_invalid_path_raises_bad_output(arrays, tmp_path):
    figure = draw_attention(**arrays, queries=TOKENS, keys=TOKENS, title="t")
    with pytest.raises(BadOutput, match=r"a\.txt: expected a name ending in \.svg"):
        figure.save(tmp_path / "a.txt")
    (tmp_path / "file").touch()
    with pytest.raises(BadOutput, match="cannot be written"):
        figure.save(tmp_path / "file" / "a.png")
