"""MSTR's baseline: a reference of the whole network, written as loops, and its operations in the paper's Table 2."""

import pytest
import torch

from affekt.models import models
from tests.contracts.builders import tiny
from tests.models.agreement import assert_exports, assert_reference_agrees
from tests.models.references import vanilla
from tests.samples_of_tables import mostly_slow

SIZES = {"dim": 8, "feedforward": 6, "heads": 2}
PAPER = {"masked": False, "norm": "map", "frames": 11}
OPTIONS = [
    {},
    {"masked": False},
    PAPER,
    {**PAPER, "frames": 5, "norm_first": True},
    {"frames": 7},
    {"norm_first": True},
    {"activation": "gelu"},
    {"score_width": "model"},
    {"projection_bias": False},
    {"hidden": (5,)},
    {"pooling": "max"},
    {"pooling": "mean+max"},
    {"pooling": "mean+std", "pool_input": True, "pooled_norm": True, "norm_first": True},
    {"positions": "sinusoids"},
    {"input_norm": "layer", "num_states": 2},
    {"input_norm": "layer", "num_states": 2, "input_mix": "learned", "stride": 2},
    {"input_norm": "standard", "stride": 3},
    {**PAPER, "input_norm": "standard", "stride": 2, "frames": 5},
]


@pytest.mark.parametrize("changes", mostly_slow(OPTIONS, 5), ids=str)
def test_outputs_and_gradients_equal_the_reference(changes):
    model = tiny("vanilla", **SIZES | changes)
    assert_reference_agrees(model, vanilla.logits, lengths=[9, 1, 6])


@pytest.mark.parametrize(("frames", "emotions", "flops"), [(326, 4, 892_241), (224, 7, 432_670), (150, 6, 205_948)])
def test_operations_equal_table_2(frames, emotions, flops):
    with torch.device("meta"):
        model = models["vanilla"](models["vanilla"].Config(frames=frames), emotions)
    assert round(model.paper_flops({"speech": frames}) / 1000) == flops


@pytest.mark.slow
def test_the_onnx_graph_equals_torch_at_any_length(tmp_path):
    assert_exports(
        tiny("vanilla", blocks=1, score_width="model", stride=2, input_norm="standard"), tmp_path / "model.onnx"
    )
