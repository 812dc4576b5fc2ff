"""How a model is fitted: each lever does what its name says, by a plain reference of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from affekt.batch import Batch, Stream
from affekt.features.augment import Masking
from affekt.training.dataset import balanced, collate
from affekt.training.supervised import (
    Supervised,
    SupervisedConfig,
    masked,
    multiplies_in_bfloat16,
    parameter_groups,
)
from tests.training.test_loop import corpus, small_model


def strategy(**settings):
    forward = {name: settings.pop(name) for name in ("masking", "counts") if name in settings}
    return Supervised(small_model(), SupervisedConfig(learning_rate=1e-2, **settings), **forward)


def logits_in_training(one, batch):
    """What the model answers in training, with the dropout that the step will draw."""
    one.model.train()
    torch.manual_seed(5)
    return one.model(batch).detach()


def loss_of_a_step(one, batch):
    torch.manual_seed(5)
    return one.step(batch, 0.5)["loss"]


def test_class_weights_make_every_emotion_count_alike():
    batch = corpus(12).batch(range(12))
    batch = replace(batch, labels=torch.tensor([0] * 8 + [1] * 3 + [2]))
    one = strategy(class_weights=True, counts=[8, 3, 1])
    logits = logits_in_training(one, batch)
    per_emotion = [F.cross_entropy(logits[batch.labels == e], batch.labels[batch.labels == e]) for e in range(3)]
    assert loss_of_a_step(one, batch) == pytest.approx(float(sum(per_emotion) / 3), rel=1e-5)


def test_a_model_is_told_how_far_training_is_before_every_step(monkeypatch):
    told = []
    one = strategy()
    monkeypatch.setattr(one.model, "set_progress", told.append)
    for progress in (0.0, 0.5):
        one.step(corpus(6).batch(range(6)), progress)
    assert told == [0.0, 0.5]


def test_an_emotion_that_nobody_speaks_weighs_nothing_and_breaks_nothing():
    one = strategy(class_weights=True, counts=[6, 6, 0])
    assert one.class_weights.tolist() == [1.0, 1.0, 0.0]


def test_soft_labels_are_the_target_where_there_are_any():
    batch = corpus(6).batch(range(6))
    votes = torch.tensor([[0.5, 0.3, 0.2]] * 6)
    one = strategy()
    logits = logits_in_training(one, batch)
    expected = -(votes * logits.log_softmax(dim=1)).sum(dim=1).mean()
    assert loss_of_a_step(one, replace(batch, soft_labels=votes)) == pytest.approx(float(expected), rel=1e-5)


def test_mixup_mixes_speech_and_label_by_one_share():
    """With constant streams that tell the utterance, the share can be read off the mixture."""
    values = torch.eye(3).repeat(2, 1)[:, None, :].expand(6, 5, 3).contiguous()
    batch = Batch({"speech": Stream(values, torch.ones(6, 5, dtype=torch.bool), 50.0)}, labels=torch.arange(6) % 3)
    one = strategy(mixup=0.4)
    mixed = set()
    for seed in range(5):
        torch.manual_seed(seed)
        result = one._augment(batch)
        speech = result.streams["speech"].values[:, 0]
        torch.testing.assert_close(speech, result.soft_labels)
        torch.testing.assert_close(result.soft_labels.sum(dim=1), torch.ones(6))
        mixed.add(round(float(result.soft_labels.max(dim=1).values.min()), 4))
    assert len(mixed) > 1


def padded_stream():
    torch.manual_seed(1)
    values = torch.randn(3, 40, 8) + torch.arange(8.0)
    mask = torch.arange(40) < torch.tensor([40, 25, 3]).unsqueeze(1)
    return Stream(values.masked_fill(~mask.unsqueeze(2), 99.0), mask, 50.0)


def test_specaugment_sets_stretches_and_bands_to_each_features_mean():
    stream = padded_stream()
    torch.manual_seed(0)
    result = masked(
        stream, Masking(num_time_masks=2, max_time_fraction=0.5, num_feature_masks=1, max_feature_fraction=0.5)
    )
    seen = 0
    for before, after, frames in zip(stream.values, result.values, [40, 25, 3], strict=True):
        assert (after[frames:] == 99.0).all(), "padding is never touched"
        changed = (before != after)[:frames]
        means = before[:frames].mean(dim=0).expand(frames, 8)
        torch.testing.assert_close(after[:frames][changed], means[changed])
        rows, columns = changed.any(dim=1), changed.all(dim=0)
        assert (changed <= (rows.unsqueeze(1) & columns) | changed.all(dim=1, keepdim=True) | columns).all()
        seen += int(changed.sum())
    assert 0 < seen < stream.mask.sum() * 8


def test_specaugment_is_drawn_from_the_seed_and_is_nothing_by_default():
    stream = padded_stream()
    assert masked(stream, Masking()) is stream
    flat = Stream(torch.randn(3, 8))
    assert masked(flat, Masking(num_time_masks=2)) is flat
    draws = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        draws.append(masked(stream, Masking(num_time_masks=1, max_time_fraction=0.9)).values)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_a_raised_floor_lifts_what_is_soft_and_nothing_else():
    stream = padded_stream()
    torch.manual_seed(0)
    result = masked(stream, Masking(floor=(1.0, 2.0), floor_probability=1.0))
    for before, after, frames in zip(stream.values, result.values, [40, 25, 3], strict=True):
        assert (after[frames:] == 99.0).all()
        floor = float(after[:frames].min())
        torch.testing.assert_close(after[:frames], before[:frames].clamp(min=floor))
        assert 1.0 <= float(before[:frames].max()) - floor <= 2.0


def test_no_stretch_is_longer_than_its_share():
    values = torch.randn(1, 100, 10)
    for seed in range(50):
        torch.manual_seed(seed)
        result = masked(
            Stream(values, None, 50.0), Masking(num_time_masks=1, max_time_fraction=0.2, num_feature_masks=0)
        )
        assert (result.values != values).any(dim=2).sum() <= 20


def test_only_training_hears_masks_and_mixtures():
    batch = corpus(6).batch(range(6))
    plain, busy = strategy(), strategy(mixup=1.0, masking=Masking(num_time_masks=3, max_time_fraction=1.0))
    torch.testing.assert_close(plain.predict(batch), busy.predict(batch))
    assert loss_of_a_step(busy, batch) != pytest.approx(loss_of_a_step(plain, batch))


def test_bfloat16_trains_nearly_alike_and_keeps_32_bit_weights():
    batch = corpus(12).batch(range(12))
    losses = {}
    for precision in ("float32", "bfloat16"):
        one = strategy(precision=precision)
        losses[precision] = [loss_of_a_step(one, batch) for _ in range(5)]
        assert all(p.dtype == torch.float32 for p in one.model.parameters())
        assert one.predict(batch).dtype == torch.float32
    assert losses["bfloat16"] != losses["float32"]
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=0.1)


@pytest.mark.parametrize(
    ("has", "precision"),
    [
        ({"avx512_bf16": True, "avx512_f": True}, "bfloat16"),
        ({"amx_bf16": True}, "bfloat16"),
        ({"bf16": True, "neon": True}, "bfloat16"),
        ({"avx512_bf16": False, "avx512_f": True}, "float32"),
        ({}, "float32"),
    ],
)
def test_auto_is_bfloat16_where_the_processor_multiplies_in_it_and_the_log_says_so(monkeypatch, has, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)
    batch, seen = corpus(6).batch(range(6)), []
    one, plain = strategy(precision="auto"), strategy(precision=precision)
    assert one.notes() == {"precision": precision}
    assert plain.notes() == {}
    one.model.register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    assert loss_of_a_step(one, batch) == loss_of_a_step(plain, batch)
    one.predict(batch)
    assert seen == [precision == "bfloat16", False]


def test_a_card_is_asked_what_it_does_itself_not_what_it_emulates(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **how: asked.append(how) or False)
    assert not multiplies_in_bfloat16(torch.device("cuda"))
    assert asked == [{"including_emulation": False}]


def test_a_step_is_adams():
    """AdamW as its paper (Loshchilov and Hutter, 2019) writes it, for three steps."""
    one, batch = strategy(weight_decay=0.1), corpus(6).batch(range(6))
    name, parameter = next((name, p) for name, p in one.model.named_parameters() if p.ndim == 2)
    first = second = 0.0
    for step in (1, 2, 3):
        before = parameter.detach().double().clone()
        one.step(batch, 0.0)
        gradient = parameter.grad.double()
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        moved = first / (1 - 0.9**step) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        expected = before - 1e-2 * (moved + 0.1 * before)
        torch.testing.assert_close(parameter.detach().double(), expected, atol=1e-6, rtol=0, msg=name)


def test_features_of_16_bits_are_widened_exactly_and_a_store_may_be_read_only():
    values = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float16)
    values.setflags(write=False)
    stream = collate([values, values[3:5]], 50.0)
    assert stream.values.dtype == torch.float32
    assert np.array_equal(stream.values[0].numpy(), values.astype(np.float32))
    assert np.array_equal(stream.values[1, :2].numpy(), values[3:5].astype(np.float32))
    assert stream.values[1, 2:].eq(0).all()


def test_the_rate_rises_and_then_falls_to_nothing():
    one = strategy(warmup=0.1, cosine=True)
    rates = [one.rate(progress) for progress in np.linspace(0, 1, 101)]
    assert rates[0] == 0
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    assert np.argmax(rates) == 10
    assert (np.diff(rates[:11]) > 0).all()
    assert (np.diff(rates[11:]) < 0).all()
    assert {strategy().rate(progress) for progress in (0.0, 0.5, 1.0)} == {1.0}


def test_without_an_encoder_there_is_one_rate():
    groups = parameter_groups(small_model(), SupervisedConfig())
    assert [group["share"] for group in groups] == [1.0]


def test_balanced_sampling_draws_every_emotion_equally_often_and_all_of_it_before_any_twice():
    labels = np.array([0] * 50 + [1] * 7 + [3] * 3)
    for seed in range(5):
        drawn = balanced(labels, np.random.default_rng(seed))
        assert len(drawn) == len(labels)
        counts = np.bincount(labels[drawn])
        assert counts.tolist() == [20, 20, 0, 20]
        times = np.bincount(drawn, minlength=len(labels))
        assert times[:50].max() == 1
        for rare in (times[50:57], times[57:]):
            assert rare.max() - rare.min() <= 1
            assert rare.min() >= 1
