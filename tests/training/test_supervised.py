"""Supervised training: each setting is compared with a plain reference implementation of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from affekt.batch import Batch, Stream
from affekt.errors import BadConfig
from affekt.features.augment import Masking
from affekt.training.dataset import collate, sample_groups
from affekt.training.supervised import (
    Supervised,
    SupervisedConfig,
    mask_stream,
    parameter_groups,
    supports_bfloat16,
)
from tests.training.test_loop import corpus, small_model


def make_strategy(**settings):
    arguments = {name: settings.pop(name) for name in ("masking", "counts", "epochs") if name in settings}
    return Supervised(small_model(), SupervisedConfig(learning_rate=1e-2, **settings), **arguments)


def logits_in_training(strategy, batch):
    """Return the logits of a training step, with the same dropout as in `loss_of_a_step`."""
    strategy.model.train()
    torch.manual_seed(5)
    return strategy.model(batch).detach()


def loss_of_a_step(strategy, batch):
    torch.manual_seed(5)
    return strategy.step(batch, 0.5)["loss"]


def test_class_weights_give_every_emotion_the_same_weight():
    batch = corpus(12).batch(range(12))
    batch = replace(batch, labels=torch.tensor([0] * 8 + [1] * 3 + [2]))
    strategy = make_strategy(class_weights=True, counts=[8, 3, 1])
    logits = logits_in_training(strategy, batch)
    per_emotion = [F.cross_entropy(logits[batch.labels == e], batch.labels[batch.labels == e]) for e in range(3)]
    assert loss_of_a_step(strategy, batch) == pytest.approx(float(sum(per_emotion) / 3), rel=1e-5)


def test_the_progress_of_training_is_set_before_every_step(monkeypatch):
    progresses = []
    strategy = make_strategy()
    monkeypatch.setattr(strategy.model, "set_progress", progresses.append)
    for progress in (0.0, 0.5):
        strategy.step(corpus(6).batch(range(6)), progress)
    assert progresses == [0.0, 0.5]


def test_an_emotion_without_utterances_has_weight_zero():
    strategy = make_strategy(class_weights=True, counts=[6, 6, 0])
    assert strategy.class_weights.tolist() == [1.0, 1.0, 0.0]


def test_soft_labels_are_the_target_if_there_are_any():
    batch = corpus(6).batch(range(6))
    votes = torch.tensor([[0.5, 0.3, 0.2]] * 6)
    strategy = make_strategy()
    logits = logits_in_training(strategy, batch)
    expected = -(votes * logits.log_softmax(dim=1)).sum(dim=1).mean()
    assert loss_of_a_step(strategy, replace(batch, soft_labels=votes)) == pytest.approx(float(expected), rel=1e-5)


def test_mixup_mixes_speech_and_label_with_the_same_weight():
    """The streams are constant and equal to the one-hot labels, so that both mixtures must be equal."""
    values = torch.eye(3).repeat(2, 1)[:, None, :].expand(6, 5, 3).contiguous()
    batch = Batch({"speech": Stream(values, torch.ones(6, 5, dtype=torch.bool), 50.0)}, labels=torch.arange(6) % 3)
    strategy = make_strategy(mixup=0.4)
    weights = set()
    for seed in range(5):
        torch.manual_seed(seed)
        result = strategy._augment(batch)
        speech = result.streams["speech"].values[:, 0]
        torch.testing.assert_close(speech, result.soft_labels)
        torch.testing.assert_close(result.soft_labels.sum(dim=1), torch.ones(6))
        weights.add(round(float(result.soft_labels.max(dim=1).values.min()), 4))
    assert len(weights) > 1


def padded_stream():
    torch.manual_seed(1)
    values = torch.randn(3, 40, 8) + torch.arange(8.0)
    mask = torch.arange(40) < torch.tensor([40, 25, 3]).unsqueeze(1)
    return Stream(values.masked_fill(~mask.unsqueeze(2), 99.0), mask, 50.0)


def test_specaugment_sets_intervals_and_bands_to_each_features_mean():
    stream = padded_stream()
    torch.manual_seed(0)
    result = mask_stream(
        stream, Masking(num_time_masks=2, max_time_fraction=0.5, num_feature_masks=1, max_feature_fraction=0.5)
    )
    num_changed = 0
    for before, after, frames in zip(stream.values, result.values, [40, 25, 3], strict=True):
        assert (after[frames:] == 99.0).all(), "padding is not changed"
        changed = (before != after)[:frames]
        means = before[:frames].mean(dim=0).expand(frames, 8)
        torch.testing.assert_close(after[:frames][changed], means[changed])
        rows, columns = changed.any(dim=1), changed.all(dim=0)
        assert (changed <= (rows.unsqueeze(1) & columns) | changed.all(dim=1, keepdim=True) | columns).all()
        num_changed += int(changed.sum())
    assert 0 < num_changed < stream.mask.sum() * 8


def test_specaugment_depends_on_the_seed_and_is_off_by_default():
    stream = padded_stream()
    assert mask_stream(stream, Masking()) is stream
    flat = Stream(torch.randn(3, 8))
    assert mask_stream(flat, Masking(num_time_masks=2)) is flat
    draws = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        draws.append(mask_stream(stream, Masking(num_time_masks=1, max_time_fraction=0.9)).values)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_a_raised_floor_changes_only_values_below_it():
    stream = padded_stream()
    torch.manual_seed(0)
    result = mask_stream(stream, Masking(floor=(1.0, 2.0), floor_probability=1.0))
    for before, after, frames in zip(stream.values, result.values, [40, 25, 3], strict=True):
        assert (after[frames:] == 99.0).all()
        floor = float(after[:frames].min())
        torch.testing.assert_close(after[:frames], before[:frames].clamp(min=floor))
        assert 1.0 <= float(before[:frames].max()) - floor <= 2.0


def test_no_time_mask_is_longer_than_its_maximum():
    values = torch.randn(1, 100, 10)
    for seed in range(50):
        torch.manual_seed(seed)
        result = mask_stream(
            Stream(values, None, 50.0), Masking(num_time_masks=1, max_time_fraction=0.2, num_feature_masks=0)
        )
        assert (result.values != values).any(dim=2).sum() <= 20


def test_masks_and_mixup_apply_only_in_training():
    batch = corpus(6).batch(range(6))
    plain, augmented = (
        make_strategy(),
        make_strategy(mixup=1.0, masking=Masking(num_time_masks=3, max_time_fraction=1.0)),
    )
    torch.testing.assert_close(plain.predict(batch), augmented.predict(batch))
    assert loss_of_a_step(augmented, batch) != pytest.approx(loss_of_a_step(plain, batch))


def test_bfloat16_training_is_close_to_float32_and_keeps_32_bit_weights():
    batch = corpus(12).batch(range(12))
    losses = {}
    for precision in ("float32", "bfloat16"):
        strategy = make_strategy(precision=precision)
        losses[precision] = [loss_of_a_step(strategy, batch) for _ in range(5)]
        assert all(p.dtype == torch.float32 for p in strategy.model.parameters())
        assert strategy.predict(batch).dtype == torch.float32
    assert losses["bfloat16"] != losses["float32"]
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=0.1)


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ({"avx512_bf16": True, "avx512_f": True}, "bfloat16"),
        ({"amx_bf16": True}, "bfloat16"),
        ({"bf16": True, "neon": True}, "bfloat16"),
        ({"avx512_bf16": False, "avx512_f": True}, "float32"),
        ({}, "float32"),
    ],
)
def test_auto_precision_depends_on_the_processor_and_is_logged(monkeypatch, capabilities, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    batch, autocast = corpus(6).batch(range(6)), []
    strategy, plain = make_strategy(precision="auto"), make_strategy(precision=precision)
    assert strategy.notes() == {"precision": precision}
    assert plain.notes() == {}
    strategy.model.register_forward_hook(lambda *_: autocast.append(torch.is_autocast_enabled("cpu")))
    assert loss_of_a_step(strategy, batch) == loss_of_a_step(plain, batch)
    strategy.predict(batch)
    assert autocast == [precision == "bfloat16", False]


def test_emulated_bfloat16_on_a_gpu_does_not_count(monkeypatch):
    arguments = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **options: arguments.append(options) or False)
    assert not supports_bfloat16(torch.device("cuda"))
    assert arguments == [{"including_emulation": False}]


def test_a_step_is_adamw():
    """Three steps, compared with AdamW as its paper (Loshchilov and Hutter, 2019) defines it."""
    strategy, batch = make_strategy(weight_decay=0.1), corpus(6).batch(range(6))
    name, parameter = next((name, p) for name, p in strategy.model.named_parameters() if p.ndim == 2)
    first = second = 0.0
    for step in (1, 2, 3):
        before = parameter.detach().double().clone()
        strategy.step(batch, 0.0)
        gradient = parameter.grad.double()
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        update = first / (1 - 0.9**step) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        expected = before - 1e-2 * (update + 0.1 * before)
        torch.testing.assert_close(parameter.detach().double(), expected, atol=1e-6, rtol=0, msg=name)


def test_16_bit_features_are_converted_exactly_and_may_be_read_only():
    values = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float16)
    values.setflags(write=False)
    stream = collate([values, values[3:5]], 50.0)
    assert stream.values.dtype == torch.float32
    assert np.array_equal(stream.values[0].numpy(), values.astype(np.float32))
    assert np.array_equal(stream.values[1, :2].numpy(), values[3:5].astype(np.float32))
    assert stream.values[1, 2:].eq(0).all()


def test_the_learning_rate_rises_and_then_falls_to_zero():
    strategy = make_strategy(warmup=0.1, cosine=True)
    rates = [strategy.rate_factor(progress) for progress in np.linspace(0, 1, 101)]
    assert rates[0] == 0
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    assert np.argmax(rates) == 10
    assert (np.diff(rates[:11]) > 0).all()
    assert (np.diff(rates[11:]) < 0).all()
    assert {make_strategy().rate_factor(progress) for progress in (0.0, 0.5, 1.0)} == {1.0}


def test_without_an_encoder_there_is_one_learning_rate():
    groups = parameter_groups(small_model(), SupervisedConfig())
    assert [group["share"] for group in groups] == [1.0]


def test_a_small_corpus_is_sampled_by_the_square_root_of_its_size():
    corpora = ["large"] * 900 + ["small"] * 100
    indices = sample_groups(corpora, np.random.default_rng(0), power=0.5)
    assert len(indices) == 1000
    times = np.bincount(indices, minlength=1000)
    assert times[900:].sum() == pytest.approx(250, abs=1)
    assert set(times[900:].tolist()) <= {2, 3}
    assert times[:900].max() == 1
    assert (indices[:500] >= 900).sum() == pytest.approx(125, abs=30)  # in a random order


def test_balanced_sampling_uses_all_utterances_of_an_emotion_before_any_twice():
    labels = np.array([0] * 50 + [1] * 7 + [3] * 3)
    for seed in range(5):
        indices = sample_groups(labels, np.random.default_rng(seed))
        assert len(indices) == len(labels)
        counts = np.bincount(labels[indices])
        assert counts.tolist() == [20, 20, 0, 20]
        times = np.bincount(indices, minlength=len(labels))
        assert times[:50].max() == 1
        for rare_emotion in (times[50:57], times[57:]):
            assert rare_emotion.max() - rare_emotion.min() <= 1
            assert rare_emotion.min() >= 1


# Optimizer and learning rate


def test_the_learning_rate_is_halved_after_every_thirty_epochs():
    epochs, batches = 120, 7
    strategy = make_strategy(decay_every=30, epochs=epochs)
    for epoch in range(1, epochs + 1):
        for number in range(batches):  # the progress as the training loop computes it
            progress = (epoch - 1 + number / batches) / epochs
            assert strategy.rate_factor(progress) == 0.5 ** ((epoch - 1) // 30), (epoch, number)


def test_the_step_decay_multiplies_warmup_and_cosine():
    strategy = make_strategy(decay_every=2, decay_factor=0.1, warmup=0.5, cosine=True, epochs=4)
    assert strategy.rate_factor(0.25) == pytest.approx(0.5 * 0.5 * (1 + np.cos(np.pi / 4)))
    assert strategy.rate_factor(0.75) == pytest.approx(0.1 * 0.5 * (1 + np.cos(3 * np.pi / 4)))


@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.9, 0.01)])
def test_sgd_takes_the_steps_of_its_definition(momentum, decay):
    batch = corpus(6).batch(range(6))
    strategy = make_strategy(optimizer="sgd", momentum=momentum, weight_decay=decay)
    weights = {name: value.detach().clone() for name, value in strategy.model.named_parameters()}
    buffers = {name: torch.zeros_like(value) for name, value in weights.items()}
    for _ in range(3):
        loss_of_a_step(strategy, batch)
        for name, parameter in strategy.model.named_parameters():
            if parameter.grad is None:  # unused by this model
                continue
            buffers[name] = momentum * buffers[name] + parameter.grad + decay * weights[name]
            weights[name] = weights[name] - 1e-2 * buffers[name]
    for name, parameter in strategy.model.named_parameters():
        torch.testing.assert_close(parameter.detach(), weights[name], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"momentum": 0.9}, "only SGD has a momentum; set optimizer = 'sgd'"),
        ({"momentum": 1.0, "optimizer": "sgd"}, "less than 1"),
        ({"decay_every": -1}, "0 for never"),
        ({"decay_factor": 0.0}, "positive factor"),
    ],
)
def test_settings_of_the_optimizer_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(BadConfig, match=message):
        SupervisedConfig(**settings)
