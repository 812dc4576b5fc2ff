"""Fine-tuning an encoder together with its head, and loading matching weights from another model."""

import numpy as np
import pytest
import torch

from affekt.batch import Batch, Stream
from affekt.errors import BadConfig
from affekt.features.whisper import WhisperConfig, WhisperStates
from affekt.models import models
from affekt.models.base import FeatureSpec
from affekt.protocols import Split
from affekt.runs.folder import Run
from affekt.training.dataset import Dataset
from affekt.training.finetuning import (
    TEACHER,
    DistillationWrapper,
    FineTunedModel,
    feature_spec,
    initial_statistics,
    load_matching_weights,
)
from affekt.training.loop import fit
from affekt.training.supervised import Supervised, SupervisedConfig, parameter_groups

EMOTIONS = ("angry", "happy", "sad")
TINY = WhisperConfig(blocks=(1, 2, 3), level="relative", span=40, dim=16, heads=2, width=16, mels=8)


def encoder():
    torch.manual_seed(0)
    return WhisperStates(TINY)


def head(dim=48, emotions=3, **settings):
    sizes = {"frames": "any", "masked": True, "norm": "features", "dim": 16, "blocks": 1, "heads": 2, "feedforward": 16}
    return models["mstr"](models["mstr"].Config(input_dim=dim, **{**sizes, **settings}), emotions)


def fine_tuned(**settings):
    return FineTunedModel(encoder(), head(), **settings)


def log_mel(count=12, seed=0, teacher=0):
    """Return a dataset of random front-end frames with a raised band per emotion, and random frames of a teacher."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % len(EMOTIONS)
    sizes = [int(generator.integers(20, 60)) for _ in labels]
    frames = [generator.normal(size=(size, 8)).astype(np.float16) for size in sizes]
    for values, label in zip(frames, labels, strict=True):
        values[:, 2 * label : 2 * label + 2] += 2
    features, specs = {"speech": frames}, {"speech": FeatureSpec(8, 100.0)}
    if teacher:
        features[TEACHER] = [generator.normal(size=(size // 2, teacher)).astype(np.float16) + 3 for size in sizes]
        specs[TEACHER] = FeatureSpec(teacher, 50.0)
    return Dataset([f"made/{n:02}" for n in range(count)], labels, features, specs)


def fit_model(folder, *, stop=0, epochs=3, **settings):
    """Fine-tune on synthetic frames; with `stop`, resume in a new strategy after that epoch."""
    train = log_mel()
    subsets = {"train": tuple(train.ids), "test": ("t/0", "t/1", "t/2")}
    labels = {name: n % 3 for ids in subsets.values() for n, name in enumerate(ids)}
    run = Run.start(folder, {"name": "made"}, Split("made", subsets, True), EMOTIONS, labels)
    for end in filter(None, (stop, epochs)):
        model = fine_tuned()
        strategy = Supervised(model, SupervisedConfig(learning_rate=1e-2, averaging=0.9, **settings))
        test = log_mel(3, seed=1)
        fit(strategy, train, {"test": test}, run, epochs=end, batch_size=4, seed=3)
    return run, strategy


@pytest.mark.slow
def test_all_encoder_parameters_change_except_fixed_ones(tmp_path):
    before = fine_tuned().state_dict()
    _, strategy = fit_model(tmp_path)
    changed = {name for name, value in strategy.model.state_dict().items() if not torch.equal(value, before[name])}
    assert "encoder.embed_positions.weight" not in changed
    assert "encoder.mel.basis" not in changed
    encoders = {f"encoder.{name}" for name, _ in encoder().named_parameters()} - {"encoder.embed_positions.weight"}
    assert encoders <= changed


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_resumed_fine_tuning_reaches_the_same_weights(tmp_path, precision):
    whole, first = fit_model(tmp_path / "whole", precision=precision, encoder_rate=0.5)
    resumed, second = fit_model(tmp_path / "resumed", stop=1, precision=precision, encoder_rate=0.5)
    for name, value in first.weights().items():
        assert torch.equal(value, second.weights()[name]), name
    np.testing.assert_array_equal(whole.predictions(3)["test"], resumed.predictions(3)["test"])


def test_a_fine_tuned_model_is_its_encoder_followed_by_its_head():
    model, batch = fine_tuned().eval(), log_mel(3).batch(range(3))
    with torch.no_grad():
        states = model.encoder.encode(batch.streams["speech"])
        torch.testing.assert_close(model(batch), model.head(Batch({"speech": states})))


def test_learning_rates_decay_from_the_head_to_the_first_block():
    model = fine_tuned()
    config = SupervisedConfig(encoder_rate=0.2, encoder_decay=0.5)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    ratios = {
        names[id(parameter)]: group["share"]
        for group in parameter_groups(model, config)
        for parameter in group["params"]
    }
    assert "encoder.embed_positions.weight" not in ratios
    for prefix, ratio in (("head.", 1.0), ("encoder.layers.2.", 0.2), ("encoder.layers.1.", 0.1)):
        assert {value for name, value in ratios.items() if name.startswith(prefix)} == {ratio}
    assert {value for name, value in ratios.items() if name.startswith("encoder.layers.0.")} == {0.05}
    assert {value for name, value in ratios.items() if name.startswith("encoder.conv")} == {0.025}
    assert ratios.keys() == {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.slow
def test_an_encoder_rate_of_zero_leaves_the_encoder_unchanged(tmp_path):
    before = encoder().state_dict()
    _, strategy = fit_model(tmp_path, encoder_rate=0.0, weight_decay=0.1)
    for name, value in strategy.model.encoder.state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_initial_statistics_are_over_all_frames():
    model, data = fine_tuned().eval(), log_mel(6)
    batches = [data.batch([0, 1, 2]), data.batch([3, 4, 5])]
    mean, std = initial_statistics(model, batches)["speech"]
    with torch.no_grad():
        each = [model.encoder.encode(data.batch([n])[0].streams["speech"]).values[0] for n in range(6)]
    frames = torch.cat(each)
    torch.testing.assert_close(mean, frames.mean(dim=0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(std, frames.std(dim=0, correction=0), atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_distillation_loss_falls_and_its_weights_are_ignored_on_loading():
    data = log_mel(teacher=5)
    model = fine_tuned(teacher_dim=5)
    model.set_teacher_statistics(*data.only(TEACHER).statistics()[TEACHER])
    strategy = Supervised(model, SupervisedConfig(learning_rate=1e-2), forward=DistillationWrapper(model))
    losses = [strategy.step(data.batch(range(12)), 0.0)["distillation"] for _ in range(30)]
    assert losses[-1] < losses[0]
    plain = fine_tuned()
    plain.load(strategy.weights())
    for name, value in plain.state_dict().items():
        assert torch.equal(value, strategy.weights()[name]), name
    assert "distillation.weight" in strategy.weights()


def test_exact_prediction_of_the_teacher_has_zero_distillation_loss():
    model = fine_tuned(teacher_dim=4).eval()
    with torch.no_grad():
        model.distillation.weight.zero_()
        model.distillation.bias.copy_(torch.tensor([1.0, -1.0, 0.0, 2.0]))
    model.set_teacher_statistics(torch.full((4,), 3.0), torch.full((4,), 2.0))
    batch = log_mel(3, teacher=4).batch(range(3))
    teacher = batch.streams[TEACHER]
    target = (3.0 + 2.0 * model.distillation.bias).detach().expand_as(teacher.values)
    streams = {**batch.streams, TEACHER: Stream(target, teacher.mask, 50.0)}
    logits, penalty = model.forward_with_penalty(Batch(streams, batch.ids, batch.labels))
    assert penalty.item() == pytest.approx(0, abs=1e-10)
    torch.testing.assert_close(logits, model(batch))


# Loading matching weights


def test_the_rows_of_emotions_that_both_have_are_copied():
    torch.manual_seed(1)
    source = head(emotions=4)
    torch.manual_seed(2)
    model, fresh = head(emotions=3), head(emotions=3)
    model.load_state_dict(fresh.state_dict())
    load_matching_weights(model, source.state_dict(), ("bored", "sad", "angry"), ("angry", "fear", "happy", "sad"))
    for name in ("weight", "bias"):
        copied, initial, other = (getattr(each.output_layer, name) for each in (model, fresh, source))
        assert torch.equal(copied[0], initial[0])
        assert torch.equal(copied[1], other[3])
        assert torch.equal(copied[2], other[0])
    output_ids = {id(parameter) for parameter in model.output_layer.parameters()}
    for name, parameter in model.named_parameters():
        if id(parameter) not in output_ids:
            assert torch.equal(parameter, source.state_dict()[name]), name


def test_the_order_of_emotions_does_not_change_predictions():
    torch.manual_seed(1)
    source, model = head().eval(), head().eval()
    load_matching_weights(model, source.state_dict(), ("sad", "angry", "happy"), ("angry", "happy", "sad"))
    batch = Batch({"speech": Stream(torch.randn(2, 9, 48), None, 50.0)})
    with torch.no_grad():
        torch.testing.assert_close(model(batch), source(batch)[:, [2, 0, 1]])


def test_the_output_layer_is_divided_by_the_temperature():
    torch.manual_seed(1)
    source, model = head().eval(), head().eval()
    load_matching_weights(model, source.state_dict(), EMOTIONS, EMOTIONS, temperature=0.5)
    batch = Batch({"speech": Stream(torch.randn(2, 9, 48), None, 50.0)})
    with torch.no_grad():
        torch.testing.assert_close(model(batch), source(batch) / 0.5)


def test_a_model_of_another_size_is_refused():
    with pytest.raises(BadConfig, match=r"has the shape \(.*\), but \(.*\) in the weights to start from"):
        load_matching_weights(head(feedforward=32), head().state_dict(), EMOTIONS, EMOTIONS)
    with pytest.raises(BadConfig, match="the weights to start from have no "):
        load_matching_weights(head(hidden=(8,)), {}, EMOTIONS, EMOTIONS)


def test_feature_spec_is_the_size_and_frame_rate_of_the_encoder():
    assert feature_spec(encoder()) == FeatureSpec(48, 50.0, 3)
