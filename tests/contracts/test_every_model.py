"""Properties of every model in the registry."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from affekt.batch import Batch
from affekt.config import decode, decode_named
from affekt.cost.sizes import build_zero_batch
from affekt.models import models
from affekt.models.base import FeatureSpec
from affekt.training.checkpoint import load_state, save_state
from tests.contracts.builders import (
    NUM_EMOTIONS,
    WITHOUT_MASKS,
    synthetic_batch,
    tiny,
    tiny_config,
    with_noise_in_the_padding,
    without_dropout,
)

pytestmark = pytest.mark.parametrize("name", models)


def test_padding_changes_nothing(name):
    if name in WITHOUT_MASKS:
        pytest.skip(WITHOUT_MASKS[name])
    model = tiny(name)
    batch = synthetic_batch(model, [9, 4])
    torch.testing.assert_close(model(batch), model(batch.pad(to=20)), atol=1e-12, rtol=0)
    torch.testing.assert_close(model(batch), model(with_noise_in_the_padding(batch)), atol=1e-12, rtol=0)


def test_a_batch_equals_its_utterances_one_by_one(name):
    model = tiny(name)
    batch = synthetic_batch(model, [31, 2, 9, 1])
    alone = torch.cat([model(batch[index]) for index in range(len(batch))])
    torch.testing.assert_close(model(batch), alone, atol=1e-12, rtol=0)


def test_every_parameter_gets_a_gradient_except_inert_ones(name):
    model = tiny(name)
    batch = synthetic_batch(model, [10, 10, 7])
    F.cross_entropy(model(batch), batch.labels).backward()
    reached = {key for key, parameter in model.named_parameters() if parameter.grad.abs().max() > 1e-12}
    assert set(dict(model.named_parameters())) - reached == model.inert_parameters()


def test_saved_and_loaded_weights_give_the_same_logits(name, tmp_path):
    model, other = tiny(name), tiny(name)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    save_state(dict(model.state_dict()), tmp_path / "weights.safetensors")
    other.load_state_dict(load_state(tmp_path / "weights.safetensors"))
    batch = synthetic_batch(model, [9, 4])
    torch.testing.assert_close(model(batch), other(batch), atol=0, rtol=0)


def test_explanations_of_a_batch_equal_those_of_its_utterances(name):
    model = tiny(name)
    batch = synthetic_batch(model, [9, 4])
    explanation = model.explain(batch)
    assert explanation["embedding"].ndim == 2
    alone = torch.cat([model.explain(batch[index])["embedding"] for index in range(2)])
    torch.testing.assert_close(explanation["embedding"], alone, atol=1e-12, rtol=0)
    assert (alone[0] - alone[1]).abs().max() > 1e-6
    assert set(model.explained_embeddings.values()) <= set(explanation)
    assert model.explained_scales in {"", *explanation}
    assert all(value.isfinite().all() for value in explanation.values())


def test_explained_attention_has_the_stated_shape_and_positions(name):
    model = tiny(name)
    batch = synthetic_batch(model, [9, 4])
    explanation, positions = model.explain(batch), model.num_positions(batch)
    for attention in model.explained_attention.values():
        if attention.weights not in explanation:
            continue
        weights = explanation[attention.weights]
        assert weights.ndim == 5
        for index in range(2):
            queries, keys = (int(positions[stream][index]) for stream in (attention.queries, attention.keys))
            rows = weights[index, :, :, :queries, :keys].sum(dim=-1)
            torch.testing.assert_close(rows, torch.ones_like(rows), atol=1e-9, rtol=0)
        if attention.kept:
            sparse, kept = explanation[attention.sparse], explanation[attention.kept]
            torch.testing.assert_close(sparse, weights * kept.unsqueeze(3))


def test_the_output_layer_computes_the_logits(name):
    model = tiny(name)
    batch = synthetic_batch(model, [9, 4])
    assert model.output_layer.weight.shape[0] == model.num_emotions == NUM_EMOTIONS
    before = model(batch)
    with torch.no_grad():
        model.output_layer.bias[1] += 1.0
    changed = (model(batch) - before).abs() > 1e-6
    assert changed.tolist() == 2 * [[False, True, False]]


def test_sizes_of_streams_replace_those_in_the_settings(name):
    model = tiny(name)
    specs = {stream: FeatureSpec(2 * dim, 50.0) for stream, dim in model.dims.items()}
    built = models[name].build(model.config, specs, 5).double()
    streams = {
        key: replace(stream, values=torch.cat([stream.values, stream.values], dim=-1))
        for key, stream in synthetic_batch(model, [9, 4]).streams.items()
    }
    assert dict(built.dims) == {stream: spec.dim for stream, spec in specs.items()}
    assert built(Batch(streams)).shape == (2, 5)


@pytest.mark.slow
def test_presets_change_only_the_settings_they_list_and_run_at_the_papers_sizes(name):
    for preset, settings in models[name].presets.items():
        model_class, config = decode_named(models, {"name": f"{name}-{preset}"}, preset)
        assert config == decode(model_class.Config, settings, preset)
        with torch.device("meta"):
            model = model_class(config, NUM_EMOTIONS)
        model = model.to_empty(device="cpu").eval()  # in torch's "meta" device, a recurrent layer takes seconds
        batch = build_zero_batch(model, {stream: model.paper.frames[stream] for stream in model.streams})
        with torch.inference_mode():
            assert model(batch).shape == (1, NUM_EMOTIONS)


@pytest.mark.slow
def test_training_can_memorize_twelve_utterances(name):
    torch.manual_seed(0)
    model = models[name](without_dropout(tiny_config(name)), NUM_EMOTIONS).double().train()
    batch = synthetic_batch(model, [5, 9, 12, 20, 7, 8, 6, 11, 4, 3, 15, 10])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(300):
        logits = model(batch)
        if (logits.argmax(dim=1) == batch.labels).all():
            break
        loss = F.cross_entropy(logits, batch.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (model(batch).argmax(dim=1) == batch.labels).all()
    assert model(batch).shape == (12, NUM_EMOTIONS)
