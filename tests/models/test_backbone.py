"""MSTR and its baseline: lengths, masks, options, and inert parameters."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from affekt.batch import Stream
from affekt.errors import BadConfig
from affekt.models import models
from tests.contracts.builders import synthetic_batch, tiny

pytestmark = pytest.mark.parametrize("name", ["mstr", "vanilla"])


def test_without_masks_padding_changes_the_output(name):
    model = tiny(name, masked=False)
    batch = synthetic_batch(model, [9, 4])
    assert (model(batch) - model(batch.pad(to=20))).abs().max() > 1e-6


def test_a_fixed_length_crops_the_tail_and_appends_zeros(name):
    model = tiny(name, frames=6, masked=False, norm="map")
    batch = synthetic_batch(model, [9, 4])
    longer = synthetic_batch(model, [9, 4]).pad(to=30)
    torch.testing.assert_close(model(batch), model(longer), atol=0, rtol=0)
    short = model(batch[1])
    torch.testing.assert_close(model(batch)[1:], short, atol=1e-12, rtol=0)


NO_DROPOUT = {"dropout": 0.0, "attention_dropout": 0.0, "classifier_dropout": 0.0}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"masked": False, "frames": 10, "norm": "map"},
        {"masked": False, "frames": 9, "norm": "map"},
        {"mask_window_padding": True},
        {"masked": False, "frames": 81, "norm": "map"},
        {"input_mix": "learned", "num_states": 2},
        {"input_mix": "learned", "num_states": 1},
        {"pooled_norm": True},
        {"pooled_norm": True, "norm_first": True, "pooling": "mean+std", "pool_input": True},
    ],
)
def test_in_training_every_parameter_gets_a_gradient_except_inert_ones(name, changes):
    if "mask_window_padding" in changes and name != "mstr":
        pytest.skip("only MSTR has this option")
    model = tiny(name, **NO_DROPOUT, **changes).train()
    batch = synthetic_batch(model, [90, 85, 60, 81])
    F.cross_entropy(model(batch), batch.labels).backward()
    largest = max(parameter.grad.abs().max() for parameter in model.parameters())
    reached = {key for key, p in model.named_parameters() if p.grad.abs().max() > 1e-9 * largest}
    assert set(dict(model.named_parameters())) - reached == model.inert_parameters()


def test_the_embedding_is_the_input_of_the_classifier(name):
    model = tiny(name)
    batch = synthetic_batch(model, [9, 4])
    torch.testing.assert_close(model.classifier(model.explain(batch)["embedding"]), model(batch))


@pytest.mark.parametrize("changes", [{"frames": "any"}, {"frames": 10, "masked": True}])
def test_a_map_norm_needs_a_fixed_length_without_masks(name, changes):
    with pytest.raises(BadConfig, match="set frames to a number and masked = false"):
        models[name].Config(norm="map", **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"norm_first": True},
        {"pooling": "mean+std"},
        {"pool_input": True, "pooling": "mean+std"},
        {"pooled_norm": True},
        {"activation": "gelu"},
        {"score_width": "model"},
        {"pooling": "max"},
        {"stride": 4},
        {"hidden": (12,)},
        {"positions": "sinusoids"},
        {"input_norm": "layer", "num_states": 2},
        {"input_mix": "learned", "num_states": 2},
    ],
)
def test_with_each_option_padding_changes_nothing(name, changes):
    model = tiny(name, **changes)
    batch = synthetic_batch(model, [9, 4])
    logits = model(batch)
    assert (logits - tiny(name)(batch)).abs().max() > 1e-6  # the option has an effect
    torch.testing.assert_close(logits, model(batch.pad(to=20)), atol=1e-12, rtol=0)


def test_the_small_preset_is_small_and_padding_changes_nothing(name):
    model_class, preset = models.resolve(f"{name}-small")
    model = model_class(model_class.Config(**preset), 6).double().eval()
    assert sum(p.numel() for p in model.parameters()) < 1_000_000
    batch = synthetic_batch(model, [9, 4])
    torch.testing.assert_close(model(batch), model(batch.pad(to=20)), atol=1e-12, rtol=0)


def test_xavier_initialization_does_not_change_norms(name):
    config = models[name].Config(frames=7, dim=32, input_dim=32, heads=2, blocks=1, initialization="xavier")
    model = models[name](config, 3)
    assert (model.blocks[0].norm1.weight == 1).all()
    weight = model.blocks[0].feedforward[0].weight  # 512 x 32
    bound = (6 / (512 + 32)) ** 0.5
    assert 0.99 * bound < float(weight.detach().abs().max()) < bound
    assert float(weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.05)


def test_a_stride_averages_frames_and_the_rest_at_the_end(name):
    model = tiny(name, stride=3)
    batch = synthetic_batch(model, [8, 2])
    values = batch.streams["speech"].values
    means = torch.zeros(2, 3, values.shape[2]).double()
    means[0] = torch.stack([values[0, :3].mean(dim=0), values[0, 3:6].mean(dim=0), values[0, 6:8].mean(dim=0)])
    means[1, 0] = values[1, :2].mean(dim=0)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    plain = tiny(name)(replace(batch, streams={"speech": Stream(means, mask, 50.0)}))
    torch.testing.assert_close(model(batch), plain, atol=1e-12, rtol=0)


def test_standardized_features_may_have_any_scale(name):
    plain, model = tiny(name), tiny(name, input_norm="standard")
    batch = synthetic_batch(model, [9, 4])
    mean, std = torch.arange(6.0).double(), torch.arange(1.0, 7.0).double()
    model.set_statistics(dict.fromkeys(model.streams, (mean, std)))
    scaled = replace(batch, streams={k: replace(s, values=s.values * std + mean) for k, s in batch.streams.items()})
    torch.testing.assert_close(model(scaled), plain(batch), atol=1e-12, rtol=0)
