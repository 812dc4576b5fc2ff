"""What is true of every model in the registry."""

import pytest
import torch
import torch.nn.functional as F

from affekt.models import models
from affekt.training.checkpoint import load_state, save_state
from tests.contracts.builders import (
    EMOTIONS,
    TINY,
    WITHOUT_MASKS,
    synthetic_batch,
    tiny,
    with_noise_in_the_padding,
    without_chance,
)

pytestmark = pytest.mark.parametrize("name", models)


def test_it_has_a_tiny_form_here(name):
    assert name in TINY


def test_padding_changes_nothing(name):
    if name in WITHOUT_MASKS:
        pytest.skip(WITHOUT_MASKS[name])
    model = tiny(name)
    batch = synthetic_batch(model, [9, 4])
    torch.testing.assert_close(model(batch), model(batch.padded(to=20)), atol=1e-12, rtol=0)
    torch.testing.assert_close(model(batch), model(with_noise_in_the_padding(batch)), atol=1e-12, rtol=0)


def test_a_batch_equals_one_by_one(name):
    model = tiny(name)
    batch = synthetic_batch(model, [31, 2, 9, 1])
    alone = torch.cat([model(batch[index]) for index in range(len(batch))])
    torch.testing.assert_close(model(batch), alone, atol=1e-12, rtol=0)


def test_every_parameter_gets_a_gradient_but_those_that_provably_cannot(name):
    model = tiny(name)
    batch = synthetic_batch(model, [10, 10, 7])
    F.cross_entropy(model(batch), batch.labels).backward()
    reached = {key for key, parameter in model.named_parameters() if parameter.grad.abs().max() > 1e-12}
    assert set(dict(model.named_parameters())) - reached == model.inert_parameters()


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
    assert all(value.isfinite().all() for value in explanation.values())


def test_it_overfits_twelve_utterances(name):
    model = tiny(name, **without_chance(name)).train()
    batch = synthetic_batch(model, [5, 9, 12, 20, 7, 8, 6, 11, 4, 3, 15, 10])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(300):
        loss = F.cross_entropy(model(batch), batch.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (model(batch).argmax(dim=1) == batch.labels).all()
    assert model(batch).shape == (12, EMOTIONS)
