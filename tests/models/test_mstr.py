"""MSTR: a reference of the whole network, written as loops, with every option, and the figures of the paper's Table 2."""

import pytest
import torch
import torch.nn.functional as F

from affekt.config import decode
from affekt.errors import BadConfig
from affekt.models import models
from tests.contracts.builders import synthetic_batch, tiny, tiny_config, without_dropout
from tests.models.agreement import assert_exports, assert_reference_agrees
from tests.models.references import mstr
from tests.samples_of_tables import mostly_slow

SIZES = {"dim": 8, "feedforward": 6, "heads": 2}
PAPER = {"masked": False, "norm": "map", "frames": 11}
OPTIONS = [
    {},
    {"masked": False},
    PAPER,
    {**PAPER, "frames": 9, "norm_first": True},
    {"frames": 7},
    {"mask_window_padding": True},
    {"mask_window_padding": True, "masked": False},
    {"factor": 2, "scales": 5},
    {"factor": 4, "scales": 1},
    {"factor": 5, "scales": 3, "upsampling": "repeat"},
    {"upsampling": "repeat", "masked": False},
    {"scale_operator": "depthwise"},
    {"scale_operator": "depthwise", "masked": False, "factor": 2},
    {"scale_operator": "convolution"},
    {**PAPER, "scale_operator": "convolution", "mask_window_padding": True},
    {"mixer": "concat"},
    {"mixer": "concat", "masked": False, "projection_bias": False},
    {"mixer": "attention"},
    {**PAPER, "mixer": "attention", "scales": 5},
    {"mixer": "attention", "scale_operator": "convolution", "upsampling": "repeat", "factor": 2},
    {"score_width": "model", "activation": "gelu", "projection_bias": False},
    {"pooling": "mean+std", "pool_input": True, "pooled_norm": True, "norm_first": True, "stride": 2},
    {"input_norm": "layer", "num_states": 2, "input_mix": "learned", "positions": "sinusoids"},
]


@pytest.mark.parametrize("changes", mostly_slow(OPTIONS, 6), ids=str)
def test_outputs_and_gradients_equal_the_reference(changes):
    model = tiny("mstr", **SIZES | changes)
    assert_reference_agrees(model, mstr.logits, lengths=[13, 1, 6])


@pytest.mark.parametrize("name", ["mstr", "vanilla"])
@pytest.mark.parametrize(
    ("frames", "emotions", "parameters"), [(326, 4, 26_992_388), (224, 7, 25_321_991), (150, 6, 24_109_318)]
)
def test_parameters_equal_table_2(name, frames, emotions, parameters):
    with torch.device("meta"):
        model = models[name](models[name].Config(frames=frames), emotions)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize(("frames", "emotions", "flops"), [(326, 4, 33_498), (224, 7, 29_812), (150, 6, 27_158)])
def test_operations_equal_table_2(frames, emotions, flops):
    with torch.device("meta"):
        model = models["mstr"](models["mstr"].Config(frames=frames), emotions)
    assert round(model.paper_flops({"speech": frames}) / 1000) == flops


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"factor": 1}, "factor = 1: expected 2 or more"), ({"scales": 0}, "scales = 0: expected 1 or more")],
)
def test_too_small_windows_and_scales_are_refused(changes, message):
    with pytest.raises(BadConfig, match=message):
        models["mstr"].Config(**changes)


@pytest.mark.parametrize("mixer", ["sum", "concat", "attention"])
@pytest.mark.parametrize("scale_operator", ["average", "depthwise", "convolution"])
def test_with_each_option_padding_changes_nothing(mixer, scale_operator):
    model = tiny("mstr", mixer=mixer, scale_operator=scale_operator)
    batch = synthetic_batch(model, [31, 2, 9, 1])
    logits = model(batch)
    torch.testing.assert_close(logits, model(batch.pad(to=40)), atol=1e-12, rtol=0)
    alone = torch.cat([model(batch[index]) for index in range(len(batch))])
    torch.testing.assert_close(logits, alone, atol=1e-12, rtol=0)


def test_a_depthwise_convolution_of_equal_taps_is_the_average():
    plain, other = tiny("mstr"), tiny("mstr", scale_operator="depthwise")
    other.load_state_dict(plain.state_dict(), strict=False)
    for name, parameter in other.named_parameters():
        if "operators" in name:
            parameter.data.fill_(1 / 3 if name.endswith("weight") else 0.0)
    batch = synthetic_batch(plain, [31, 9])
    torch.testing.assert_close(other(batch), plain(batch), atol=1e-12, rtol=0)


def test_attention_over_scales_ignores_scales_without_frames():
    model = tiny("mstr", mixer="attention", scales=5)
    fractions = model.explain(synthetic_batch(model, [8, 2]))["scale_fraction"]
    torch.testing.assert_close(fractions.sum(dim=2)[0], torch.ones(2, 8).double())
    assert not fractions[0, :, 2:].any()  # eight frames give two means of three, and none of nine
    assert not fractions[1, :, 1:].any()


@pytest.mark.parametrize(
    "changes",
    [
        {"scale_operator": "convolution"},
        {"scale_operator": "depthwise", "mask_window_padding": True},
        {"scale_operator": "convolution", "mask_window_padding": True, **PAPER, "frames": 10},
        {"scale_operator": "depthwise", **PAPER, "frames": 10},
        {"scale_operator": "depthwise", **PAPER, "frames": 82},
        {"scale_operator": "depthwise", **PAPER, "frames": 27, "scales": 3},
        {"mixer": "attention", **PAPER, "frames": 2},
        {"mixer": "attention", "scales": 1},
        {"mixer": "concat", "projection_bias": False},
        {"mask_window_padding": True, **PAPER, "frames": 1},
    ],
    ids=str,
)
def test_inert_parameters_are_those_without_a_gradient(changes):
    torch.manual_seed(0)
    model = models["mstr"](without_dropout(tiny_config("mstr", **changes)), 3).double()
    batch = synthetic_batch(model, [90, 85, 60, 81])
    F.cross_entropy(model(batch), batch.labels).backward()
    largest = max(p.grad.abs().max() for p in model.parameters() if p.grad is not None)
    reached = {
        key for key, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 1e-12 * largest
    }
    assert set(dict(model.named_parameters())) - reached == model.inert_parameters()


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"mask_window_padding": True, "scale_operator": "convolution", "mixer": "attention", "upsampling": "repeat"},
        {**PAPER, "mixer": "concat", "scale_operator": "depthwise"},
    ],
    ids=str,
)
def test_the_onnx_graph_equals_torch_at_any_length(changes, tmp_path):
    assert_exports(tiny("mstr", blocks=1, scales=2, **changes), tmp_path / "model.onnx")


def test_old_names_are_refused_with_the_new_ones():
    config = models["mstr"].Config
    with pytest.raises(BadConfig, match="'input_parts' was renamed to 'num_states'"):
        decode(config, {"input_parts": 3}, "model")
    with pytest.raises(BadConfig, match=r"'mean\+deviation' of pooling was renamed to 'mean\+std'"):
        decode(config, {"pooling": "mean+deviation"}, "model")
