"""MCSAN: a reference written as loops, its sizes, its masks, its options, and its ONNX graph."""

from dataclasses import asdict, replace

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from affekt.batch import Batch, Stream
from affekt.errors import BadConfig
from affekt.models.base import FeatureSpec
from affekt.models.mcsan.encoders import MCSANSpeechEncoder, run_bidirectional_lstm
from affekt.models.mcsan.model import MCSAN, MCSANConfig
from tests.models.references.mcsan import mcsan as reference
from tests.samples_of_tables import mostly_slow

TINY = {"speech_dim": 3, "text_dim": 4, "dim": 4, "heads": 2, "feedforward": 5, "hidden": (3,)}
LENGTHS = {"speech": [29, 10, 2], "text": [5, 1, 3]}
BOUNDED = {"speech_frames": 31, "text_tokens": 6}


def tiny(dtype=torch.float64, **changes):
    torch.manual_seed(0)
    model = MCSAN(MCSANConfig(**{**TINY, **changes}), 3).to(dtype).eval()
    with torch.no_grad():  # away from the zeros and ones of an initialization, which hide mistakes
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.add_(0.3 * torch.rand_like(tensor))
    return model


def padded_stream(lengths, dim, seed, dtype=torch.float64, extra=0):
    mask = torch.arange(max(lengths) + extra) < torch.tensor(lengths).unsqueeze(1)
    values = torch.randn(*mask.shape, dim, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return Stream(values * mask.unsqueeze(2), mask)


def batch_for(model, lengths=LENGTHS, dtype=torch.float64, extra=0):
    return Batch(
        {
            name: padded_stream(lengths[name], model.dims[name], seed, dtype, extra)
            for seed, name in enumerate(model.streams)
        }
    )


def parameters(config, emotions=7):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in MCSAN(config, emotions).parameters())


@pytest.mark.parametrize(("feedforward", "count"), [(512, 1_628_935), (128, 1_234_183), (2048, 3_207_943)])
def test_parameters_at_the_papers_sizes(feedforward, count):
    assert parameters(MCSANConfig(feedforward=feedforward)) == count


def test_the_rows_of_table_3_differ_by_the_parameters_they_omit_or_add():
    whole = parameters(MCSANConfig())
    block = 198_272  # one of four
    pooled = 128 * 128  # the classifier's weights of one pooled output
    speech, text = 15_488 + 49_280 + 264_192, 440_320  # two convolutions and an LSTM; an LSTM
    rows = {name: parameters(MCSANConfig(**preset)) for name, preset in MCSAN.presets.items() if name != "small"}
    assert rows == {
        "without_audio": whole - speech - 3 * block - 3 * pooled,
        "without_text": whole - text - 3 * block - 3 * pooled,
        "without_self": whole - 2 * block - 2 * pooled,
        "without_cross": whole - 2 * block - 2 * pooled,
        "cross_self": whole - 2 * pooled,
        "self_cross": whole - 2 * pooled,
        "two_layers": whole + 4 * block,
        "three_layers": whole + 8 * block,
    }


OPTIONS = [
    {},
    {"masked": False},
    {"input_norm": "none"},
    {"input_norm": "standard"},
    {"input_norm": "standard", "masked": False},
    {"pool_stride": 1},
    {"pool_stride": 2},
    {"convolution_padding": 0},
    {"convolution_padding": 0, "pool_stride": 2, "masked": False},
    {"convolution_activation": "relu"},
    {"feedforward": 9, "heads": 4},
    {"hidden": ()},
    {"positions": "none"},
    {"positions": "learned", **BOUNDED},
    {"positions_in": "cross"},
    {"positions_in": "cross", "modules": "self+cross", "pool_stride": 1},
    {"attention_scale": "dim", "pool_stride": 1},
    {"modalities": "speech", "pool_stride": 1},
    {"modalities": "text"},
    {"modalities": "text", "layers": 2, "hidden": ()},
    {"modules": "cross"},
    {"modules": "self"},
    {"modules": "cross+self", "pool_stride": 1},
    {"modules": "self+cross"},
    {"modules": "self+cross", "pooled": "all", "layers": 2},
    {"modules": "cross+self", "pooled": "all", "masked": False},
    {"layers": 2},
    {"layers": 3, "pool_stride": 1},
    {"cross_update": "sequential", "layers": 2, "pool_stride": 1},
    {"speech_frames": 13, "text_tokens": 2},
    {"padded_to": "maximum", "masked": False, **BOUNDED},
    {"padded_to": "maximum", "speech_frames": 17, "text_tokens": 3},
]


def reference_logits(model, batch, weights):
    """Return the reference's logits, for each utterance alone: at its own length or, without masks, with its padding."""
    settings = asdict(model.config)
    logits = []
    for index in range(len(batch)):
        streams, settings["frames"] = {}, {}
        for name, stream in batch.streams.items():
            limit = getattr(model.config, {"speech": "speech_frames", "text": "text_tokens"}[name])
            most = stream.values.shape[1] if limit == "any" else min(limit, stream.values.shape[1])
            settings["frames"][name] = min(most, int(stream.mask[index].sum()))
            x = stream.values[index, : settings["frames"][name]]
            if not model.config.masked:  # padding is read as zero frames
                x = torch.cat([x, torch.zeros(most - len(x), x.shape[1], dtype=x.dtype)])
            if model.config.padded_to == "maximum" and not model.config.masked:
                x = torch.cat([x, torch.zeros(limit - len(x), x.shape[1], dtype=x.dtype)])
            streams[name] = x
        logits.append(reference(weights, streams, settings))
    return torch.stack(logits)


@pytest.mark.parametrize("changes", mostly_slow(OPTIONS, 6), ids=str)
def test_outputs_and_gradients_equal_the_reference(changes):
    model = tiny(**changes)
    batch = batch_for(model)
    inputs = {name: stream.values.requires_grad_() for name, stream in batch.streams.items()}
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    learned = {name: weights[name].requires_grad_() for name, _ in model.named_parameters()}

    logits, expected = model(batch), reference_logits(model, batch, weights)
    torch.testing.assert_close(logits, expected, atol=1e-10, rtol=0)

    direction = torch.randn(logits.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    gradients = torch.autograd.grad((logits * direction).sum(), [*model.parameters(), *inputs.values()])
    plain = torch.autograd.grad(
        (expected * direction).sum(), [*learned.values(), *inputs.values()], allow_unused=True, materialize_grads=True
    )
    for name, gradient, expected in zip([*learned, *inputs], gradients, plain, strict=True):
        torch.testing.assert_close(
            gradient, expected, atol=1e-10, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_the_lstm_equals_torchs_packed_lstm():
    torch.manual_seed(1)
    lstm = torch.nn.LSTM(3, 4, batch_first=True, bidirectional=True).double()
    x, lengths = torch.randn(4, 9, 3).double(), torch.tensor([9, 1, 5, 8])
    packed, _ = lstm(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
    both, _ = pad_packed_sequence(packed, batch_first=True)
    output = run_bidirectional_lstm(lstm, x, lengths)
    for index, length in enumerate(lengths):
        expected = both[index, :length].unflatten(1, (2, 4)).mean(dim=1)
        torch.testing.assert_close(output[index, :length], expected, atol=1e-14, rtol=0)


@pytest.mark.parametrize(("padding", "num_frames"), [(1, 111), (0, 110)])
def test_the_convolutions_reduce_frames_to_a_ninth_and_keep_at_least_one(padding, num_frames):
    encoder = MCSANSpeechEncoder(3, 4, padding=padding, pool_stride=3, relu=False)
    assert encoder.num_output_frames(1000) == num_frames
    for frames in range(1, 9):
        assert encoder.num_output_frames(frames) == 1
        assert encoder(torch.zeros(1, frames, 3), torch.tensor([frames]))[0].shape == (1, 1, 4)


@pytest.mark.slow
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1])
def test_utterances_of_a_batch_do_not_affect_one_another(stride, padding):
    model = tiny(pool_stride=stride, convolution_padding=padding)
    batch = batch_for(model, {"speech": [*range(1, 12), 40], "text": [*range(1, 13)]})
    logits = model(batch)
    torch.testing.assert_close(model(batch.pad(to=55)), logits, atol=1e-12, rtol=0)
    for index in range(len(batch)):
        torch.testing.assert_close(model(batch[index]), logits[index : index + 1], atol=1e-12, rtol=0)


def test_nan_in_the_padding_has_no_effect():
    model = tiny()
    batch = batch_for(model)
    with_nan = {
        name: replace(s, values=s.values.masked_fill(~s.mask.unsqueeze(2), torch.nan))
        for name, s in batch.streams.items()
    }
    torch.testing.assert_close(model(Batch(with_nan)), model(batch), atol=0, rtol=0)


def test_an_utterance_without_words_is_read_as_one_zero_token():
    model = tiny()
    batch = batch_for(model, {"speech": [12, 9], "text": [0, 3]})
    alone, zeros = batch[0], batch[0].pad(to=12)
    assert alone.streams["text"].values.shape[1] == 0
    torch.testing.assert_close(model(alone), model(batch)[:1], atol=1e-12, rtol=0)
    torch.testing.assert_close(model(alone), model(zeros), atol=1e-12, rtol=0)


def test_without_masks_padding_has_an_effect_unless_lengths_are_fixed():
    model = tiny(masked=False)
    batch = batch_for(model)
    assert (model(batch) - model(batch.pad(to=40))).abs().max() > 1e-6
    fixed = tiny(masked=False, padded_to="maximum", **BOUNDED)
    assert fixed.lengths == {"speech": 31, "text": 6}
    torch.testing.assert_close(fixed(batch), fixed(batch.pad(to=40)), atol=1e-12, rtol=0)


def test_frames_beyond_the_maximum_have_no_effect():
    model = tiny(speech_frames=20)
    batch = batch_for(model)
    speech = batch.streams["speech"]
    other = Batch({**batch.streams, "speech": replace(speech, values=speech.values.clone())})
    other.streams["speech"].values[:, 20:] += 1
    torch.testing.assert_close(model(batch), model(other), atol=0, rtol=0)
    other.streams["speech"].values[:, 15:] += 1
    assert (model(batch) - model(other)).abs().max() > 1e-6


@pytest.mark.parametrize(
    ("norm", "scaled"), [("speech", {"speech"}), ("standard", {"speech", "text"}), ("none", set())]
)
def test_standardized_streams_may_have_any_scale(norm, scaled):
    plain, model = tiny(input_norm="none"), tiny(input_norm=norm)
    model.load_state_dict(plain.state_dict(), strict=False)
    batch = batch_for(model)
    statistics, streams = {}, dict(batch.streams)
    for name, dim in model.dims.items():
        mean, std = torch.arange(1.0, dim + 1).double(), torch.arange(2.0, dim + 2).double()
        statistics[name] = (mean, std)
        if name in scaled:
            streams[name] = replace(streams[name], values=streams[name].values * std + mean)
    model.set_statistics(statistics)
    torch.testing.assert_close(model(Batch(streams)), plain(batch), atol=1e-12, rtol=0)


def test_explanations_have_attention_of_each_stream():
    model = tiny(layers=2, pool_stride=1)
    batch = batch_for(model)
    explanation = model.explain(batch)
    frames = {"speech": 25, "text": 5}
    lengths = {"speech": [25, 6, 1], "text": [5, 1, 3]}
    assert set(explanation) == {"embedding", "embedding_speech", "embedding_text"} | {
        f"{module}_attention_{stream}" for module in ("cross", "self") for stream in frames
    }
    for module, stream in (("cross", "speech"), ("cross", "text"), ("self", "speech"), ("self", "text")):
        keys = stream if module == "self" else next(name for name in frames if name != stream)
        maps = explanation[f"{module}_attention_{stream}"]
        assert maps.shape == (3, 2, 2, frames[stream], frames[keys])
        for index, length in enumerate(lengths[keys]):
            torch.testing.assert_close(maps[index, ..., :length].sum(dim=3), torch.ones_like(maps[index, ..., 0]))
            assert (maps[index, ..., length:] == 0).all()


def test_the_embedding_has_the_documented_order():
    model = tiny()
    batch = batch_for(model)
    explanation = model.explain(batch)
    torch.testing.assert_close(model.classifier(explanation["embedding"]), model(batch), atol=0, rtol=0)
    cross_speech, cross_text, self_speech, self_text = explanation["embedding"].split(4, dim=1)
    torch.testing.assert_close(
        explanation["embedding_speech"], torch.cat([cross_speech, self_speech], dim=1), atol=0, rtol=0
    )
    torch.testing.assert_close(explanation["embedding_text"], torch.cat([cross_text, self_text], dim=1), atol=0, rtol=0)


def test_one_modality_has_only_its_self_attention():
    model = tiny(modalities="text")
    assert model.streams == MCSAN.streams_of(model.config) == ("text",)
    assert model.dims == {"text": 4}
    explanation = model.explain(batch_for(model))
    assert set(explanation) == {"embedding", "embedding_text", "self_attention_text"}
    torch.testing.assert_close(explanation["embedding"], explanation["embedding_text"], atol=0, rtol=0)


@pytest.mark.parametrize(
    "changes",
    mostly_slow([{}, *({"pool_stride": 1, **options} for options in OPTIONS if options)], 5),
    ids=str,
)
def test_every_parameter_gets_a_gradient_except_key_biases(changes):
    model = tiny(**{**changes, "pool_stride": 1})
    model(batch_for(model, {"speech": [29, 24, 20], "text": [6, 5, 4]})).square().sum().backward()
    reached = {name for name, parameter in model.named_parameters() if parameter.grad.abs().max() > 1e-12}
    assert set(dict(model.named_parameters())) - reached == model.inert_parameters()


def test_build_uses_the_sizes_of_the_features():
    specs = {"speech": FeatureSpec(11, 50.0), "text": FeatureSpec(13, None), "speaker": FeatureSpec(5, None)}
    assert MCSAN.build(MCSANConfig(), specs, 4).dims == {"speech": 11, "text": 13}
    assert MCSAN.build(MCSANConfig(modalities="text"), {"text": specs["text"]}, 4).dims == {"text": 13}


def test_dropout_acts_in_training_only():
    model = tiny(dropout=0.3, attention_dropout=0.3, encoder_dropout=0.3, classifier_dropout=0.3)
    batch = batch_for(model)
    torch.testing.assert_close(model(batch), tiny()(batch), atol=0, rtol=0)
    assert (model.train()(batch) - model(batch)).abs().max() > 1e-6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 3}, r"heads = 3 does not divide dim = 128"),
        ({"pool_stride": 4}, r"pool_stride = 4: expected 1 to 3"),
        ({"layers": 0}, r"layers = 0: expected 1 or more"),
        ({"modalities": "text", "modules": "cross"}, r"modules = 'cross' needs both modalities: with text alone"),
        ({"modules": "self", "positions_in": "cross"}, r"there is no cross-attention: set positions_in = 'both'"),
        (
            {"positions": "learned"},
            r"need a maximum length: set speech_frames to a number and text_tokens to a number",
        ),
        ({"padded_to": "maximum", "modalities": "text"}, r"need a maximum length: set text_tokens to a number"),
    ],
)
def test_contradictory_settings_are_refused(settings, message):
    with pytest.raises(BadConfig, match=message):
        MCSANConfig(**settings)
