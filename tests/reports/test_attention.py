"""The plot of vanilla beside key-sparse attention, and its errors."""

import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch

from affekt.errors import BadConfig, BadOutput, UnknownName
from affekt.reports.attention import Axis, draw_attention, token_words

TEXT = "OK, look, a beautiful day."
WORDS = [-1, 0, 0, 1, 2, 3, 4, -1]


@pytest.fixture
def explanation():
    generator = torch.Generator().manual_seed(0)
    vanilla = torch.rand(2, 3, 2, 8, 8, generator=generator).softmax(dim=4)
    kept = torch.zeros(2, 3, 2, 8, dtype=torch.bool)
    kept[..., [1, 3, 5]] = True
    sparse = vanilla * kept.unsqueeze(3)
    return {
        "fusion_text_vanilla": vanilla,
        "fusion_text_sparse": sparse,
        "fusion_text_kept": kept,
        "embedding": vanilla,
    }


def test_tokens_are_labeled_with_their_words():
    assert token_words(TEXT, WORDS) == ["-", "OK,", "·", "look,", "a", "beautiful", "day.", "-"]
    assert token_words("no no", [0, 1]) == ["no", "no"]


@pytest.mark.parametrize("head", [None, 1])
def test_the_plot_has_the_words_and_both_kinds_of_attention(explanation, tmp_path, head):
    path = tmp_path / "attention.svg"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("matplotlib").rcParams, "svg.fonttype", "none")
        axis = Axis(8, token_words(TEXT, WORDS))
        draw_attention(explanation, path, queries=axis, head=head, title="a title")
    words = [text.strip() for node in ElementTree.parse(path).iter() if (text := node.text or "").strip()]
    assert {"vanilla", "key-sparse", "kept", "attention weight", "query", "key", "a title"} <= set(words)
    assert words.count("beautiful") == 3  # below both panels, and left of the first


def test_audio_axes_are_in_seconds_and_padding_is_not_drawn(explanation, tmp_path):
    from matplotlib.figure import Figure

    saved = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda figure, path, dpi: saved.append((figure, path, dpi)))
        draw_attention(explanation, tmp_path / "a.png", queries=Axis(8), keys=Axis(6, frame_rate=50.0))
    marks, cells = saved[0][0].axes[1], saved[0][0].axes[3]
    assert cells.get_xlabel() == "key, seconds"
    assert cells.get_xlim() == (0, 6 / 50)
    assert saved[0][0].axes[2].get_ylabel() == "query, frames"
    shown = cells.images[0].get_array()
    assert shown.shape == (8, 6)
    assert (~np.ma.getmaskarray(shown)).all(axis=0).tolist() == [False, True, False, True, False, True]
    assert [bar.get_height() for bar in marks.patches] == [0, 1, 0, 1, 0, 1]
    np.testing.assert_allclose(shown[:, 1], explanation["fusion_text_vanilla"][0, -1, :, :, 1].mean(dim=0))


def test_a_png_is_written_without_pyplot(explanation, tmp_path):
    before = "matplotlib.pyplot" in sys.modules
    draw_attention(explanation, tmp_path / "a.png", queries=Axis(8), utterance=1, layer=0)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert ("matplotlib.pyplot" in sys.modules) == before


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"stack": "fusion_speech"},
            UnknownName,
            r"no fusion_speech_vanilla; choose one of its stacks \(fusion_text\)",
        ),
        ({"queries": Axis(9)}, BadConfig, "the axis has 9 frames, but the attention has 8"),
        ({"queries": Axis(0)}, BadConfig, "the axis has 0 frames"),
        ({"queries": Axis(8, ["one", "two"])}, BadConfig, "2 words for 8 frames"),
        ({"head": 2}, BadConfig, "head 2 of fusion_text_vanilla does not exist: expected 0 to 1"),
        ({"layer": 3}, BadConfig, "layer 3 of fusion_text_vanilla does not exist: expected 0 to 2"),
        ({"utterance": 2}, BadConfig, "utterance 2 of fusion_text_vanilla does not exist"),
    ],
)
def test_invalid_arguments_are_refused(explanation, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        draw_attention(explanation, tmp_path / "a.png", **{"queries": Axis(8), **options})


def test_an_invalid_path_raises_bad_output(explanation, tmp_path):
    with pytest.raises(BadOutput, match=r"a\.txt: expected a name ending in \.png"):
        draw_attention(explanation, tmp_path / "a.txt", queries=Axis(8))
    with pytest.raises(BadOutput, match=r"a\.png cannot be written"):
        draw_attention(explanation, tmp_path / "nowhere" / "a.png", queries=Axis(8))
