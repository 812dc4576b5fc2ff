"""What is true of every model in the registry."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from affekt.batch import Stream
from affekt.checkpoint import load_state, save_state
from affekt.models import models
from tests.contracts.builders import EMOTIONS, TINY, synthetic_batch, tiny, with_noise_in_the_padding

pytestmark = pytest.mark.parametrize("name", models)


def test_it_has_a_tiny_form_here(name):
    assert name in TINY


def test_padding_changes_nothing(name):
    model = tiny(name)
    batch = synthetic_batch(model, [9, 4])
    torch.testing.assert_close(model(batch), model(batch.padded(to=20)), atol=1e-12, rtol=0)
    torch.testing.assert_close(model(batch), model(with_noise_in_the_padding(batch)), atol=1e-12, rtol=0)


def test_a_batch_equals_one_by_one(name):
    model = tiny(name)
    batch = synthetic_batch(model, [31, 2, 9, 1])
    alone = torch.cat([model(batch[index]) for index in range(len(batch))])
    torch.testing.assert_close(model(batch), alone, atol=1e-12, rtol=0)


def test_without_masks_padding_counts(name):
    model = tiny(name, masked=False)
    batch = synthetic_batch(model, [9, 4])
    assert (model(batch) - model(batch.padded(to=20))).abs().max() > 1e-6


def test_a_fixed_length_crops_the_tail_and_appends_zeros(name):
    model = tiny(name, frames=6, masked=False, norm="map")
    batch = synthetic_batch(model, [9, 4])
    longer = synthetic_batch(model, [9, 4]).padded(to=30)
    torch.testing.assert_close(model(batch), model(longer), atol=0, rtol=0)
    short = model(batch[1])
    torch.testing.assert_close(model(batch)[1:], short, atol=1e-12, rtol=0)


@pytest.mark.parametrize("changes", [{}, {"masked": False, "frames": 10, "norm": "map"}, {"mask_window_padding": True}])
def test_every_parameter_gets_a_gradient_but_those_that_provably_cannot(name, changes):
    if "mask_window_padding" in changes and name != "mstr":
        pytest.skip("an option of MSTR's")
    model = tiny(name, **changes)
    batch = synthetic_batch(model, [10, 10, 7])
    F.cross_entropy(model(batch), batch.labels).backward()
    reached = {key for key, parameter in model.named_parameters() if parameter.grad.abs().max() > 1e-12}
    assert set(dict(model.named_parameters())) - reached == model.inert_parameters()


@pytest.mark.parametrize(
    "changes",
    [
        {"norm_first": True},
        {"pooling": "mean+deviation"},
        {"pool_input": True, "pooling": "mean+deviation"},
        {"pooled_norm": True},
        {"stride": 4},
        {"hidden": (12,)},
        {"positions": "sinusoids"},
        {"input_norm": "layer", "input_parts": 2},
        {"input_mix": "learned", "input_parts": 2},
    ],
)
def test_options_keep_the_contract(name, changes):
    model = tiny(name, **changes)
    batch = synthetic_batch(model, [9, 4])
    logits = model(batch)
    assert (logits - tiny(name)(batch)).abs().max() > 1e-6  # the option does something
    torch.testing.assert_close(logits, model(batch.padded(to=20)), atol=1e-12, rtol=0)


def test_a_stride_averages_frames_and_what_is_left_at_the_end(name):
    model = tiny(name, stride=3)
    batch = synthetic_batch(model, [8, 2])
    values = batch.streams["speech"].values
    means = torch.zeros(2, 3, values.shape[2]).double()
    means[0] = torch.stack([values[0, :3].mean(dim=0), values[0, 3:6].mean(dim=0), values[0, 6:8].mean(dim=0)])
    means[1, 0] = values[1, :2].mean(dim=0)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    plain = tiny(name)(replace(batch, streams={"speech": Stream(means, mask, 50.0)}))
    torch.testing.assert_close(model(batch), plain, atol=1e-12, rtol=0)


def test_standardised_features_come_in_any_scale(name):
    plain, model = tiny(name), tiny(name, input_norm="standard")
    batch = synthetic_batch(model, [9, 4])
    mean, deviation = torch.arange(6.0).double(), torch.arange(1.0, 7.0).double()
    model.set_statistics(dict.fromkeys(model.streams, (mean, deviation)))
    scaled = replace(
        batch, streams={k: replace(s, values=s.values * deviation + mean) for k, s in batch.streams.items()}
    )
    torch.testing.assert_close(model(scaled), plain(batch), atol=1e-12, rtol=0)


def test_saved_and_loaded_it_answers_the_same(name, tmp_path):
    model, other = tiny(name), tiny(name)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    save_state(dict(model.state_dict()), tmp_path / "weights.safetensors")
    other.load_state_dict(load_state(tmp_path / "weights.safetensors"))
    batch = synthetic_batch(model, [9, 4])
    torch.testing.assert_close(model(batch), other(batch), atol=0, rtol=0)


def test_it_explains_itself(name):
    model = tiny(name)
    batch = synthetic_batch(model, [9, 4])
    explanation = model.explain(batch)
    assert explanation["embedding"].shape[0] == 2
    torch.testing.assert_close(model.classifier(explanation["embedding"]), model(batch))
    assert all(value.isfinite().all() for value in explanation.values())


def test_it_overfits_twelve_utterances(name):
    model = tiny(name, dropout=0.0, attention_dropout=0.0, classifier_dropout=0.0).train()
    batch = synthetic_batch(model, [5, 9, 12, 20, 7, 8, 6, 11, 4, 3, 15, 10])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(300):
        loss = F.cross_entropy(model(batch), batch.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (model(batch).argmax(dim=1) == batch.labels).all()
    assert model(batch).shape == (12, EMOTIONS)
