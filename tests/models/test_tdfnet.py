"""TDFNet: the sizes that its paper states, a reference written as loops, its padding, its explanations and its ONNX graph."""

import contextlib
import io
import logging
import warnings
from dataclasses import replace

import onnxruntime
import pytest
import torch
from torch import nn

from affekt.batch import Batch, Stream
from affekt.config import decode, decode_named, encode
from affekt.errors import BadConfig
from affekt.models import models
from affekt.models.base import FeatureSpec
from affekt.models.tdfnet.config import TDFNetConfig
from affekt.models.tdfnet.model import TDFNet
from tests.conftest import shapes_unchecked
from tests.models.references import tdfnet as reference
from tests.samples_of_tables import mostly_slow

EMOTIONS = 3
SMALL = {
    "speech_frames": 8,
    "text_tokens": 5,
    "speech_dim": 5,
    "text_dim": 4,
    "speaker_dim": 3,
    "dim": 16,
    "heads": 2,
    "feedforward": 6,
    "layers": 1,
    "speech_stride": 2,
    "text_stride": 2,
}
ANY = {"speech_frames": "any", "text_tokens": "any"}


def on_meta_device(**settings):
    """Build the model at the paper's sizes without allocating memory."""
    with torch.device("meta"):
        return TDFNet(TDFNetConfig(**settings), 4)


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def small(**settings):
    """Build a small model with all weights away from the zeros and ones of an initialization, which hide mistakes."""
    torch.manual_seed(0)
    model = TDFNet(TDFNetConfig(**{**SMALL, **settings}), EMOTIONS).double().eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(0.2 * torch.rand_like(tensor))
    return model


def small_batch(model, lengths=((7, 4), (2, 3)), dtype=torch.float64):
    """Return utterances with these numbers of frames and tokens, and noise in the padding."""
    generator = torch.Generator().manual_seed(1)
    streams = {}
    for name in model.streams:
        if name == "speaker":
            streams[name] = Stream(torch.randn(len(lengths), model.dims[name], generator=generator, dtype=dtype))
            continue
        counts = torch.tensor([pair[("speech", "text").index(name)] for pair in lengths])
        mask = torch.arange(int(counts.max())) < counts.unsqueeze(1)
        streams[name] = Stream(torch.randn(*mask.shape, model.dims[name], generator=generator, dtype=dtype), mask)
    return Batch(streams)


# Sizes that the paper states.


def test_o_has_the_11712_entries_of_the_paper_in_order():
    d, f = 768, 192
    widths = on_meta_device().groups
    assert list(widths) == ["A", "T", "A'", "T'", "S", "C", "C_AT", "C_TA", "D_1", "D_2", "H_1", "H_2"]
    assert [widths[name] for name in ("A", "T", "A'", "T'")] == [2 * d, 2 * d, d, d]
    assert [widths[name] for name in ("S", "C", "C_AT", "C_TA")] == [f, 2 * d, 2 * d, 2 * d]  # U: 6d + f
    assert [widths[name] for name in ("D_1", "D_2", "H_1", "H_2")] == [d, d // 2, d, d // 2]
    assert sum(widths.values()) == 11_712


@pytest.mark.parametrize("blocks", [1, 2, 3, 6])
def test_the_width_of_o_follows_its_formula(blocks):
    d, f = 768, 192
    model = on_meta_device(blocks=blocks, heads=6)
    assert sum(model.groups.values()) == sum(d * 2 ** (2 - i) for i in range(1, blocks + 1)) + 12 * d + f
    assert len(model.blocks) == blocks


def test_parameters_at_the_papers_sizes():
    model = on_meta_device()
    assert parameters(model) == 254_731_780
    assert parameters(model.gate) == 11_712**2
    assert parameters(model.blocks) - 2 * parameters(model.blocks[0].first["speech"]) == 30_109_184
    assert parameters(model.inputs) == 1024 * 768 + 768


@pytest.mark.parametrize(
    ("settings", "count", "width"),
    [
        ({"mutual_layers": "one"}, 237_408_260, 11_712),
        ({"gate": "parts"}, 254_731_780 - 11_712**2 + 12 * 11_712, 11_712),
        ({"gate": "scalar"}, 254_731_780 - 11_712**2 + 11_712, 11_712),
        ({"gate_bias": True}, 254_731_780 + 11_712, 11_712),
        ({"mutual_pooling": "mean"}, None, 11_712 - 3 * 768),
        ({"primes": "before_cnn"}, None, 13_248),
        ({"embeddings": "raw"}, None, 12_224),
        ({"embeddings": "encoded"}, 254_731_780, 11_712),
        ({"projection": "both"}, 254_731_780 + 768 * 768 + 768, 11_712),
        ({"bidirectional": True}, None, 11_712),
    ],
)
def test_alternative_options_have_their_sizes(settings, count, width):
    model = on_meta_device(**settings)
    assert sum(model.groups.values()) == width
    assert count is None or parameters(model) == count


@pytest.mark.parametrize(
    ("row", "streams", "width"),
    [
        ("audio", ("speech",), 9 * 768 // 2),
        ("text", ("text",), 9 * 768 // 2),
        ("without_dst", ("speech", "text", "speaker"), 10 * 768 + 192),
        ("without_mt", ("speech", "text"), 9 * 768),
        ("without_me", ("speech", "text", "speaker"), 11_712),
    ],
)
def test_the_rows_of_table_v_are_presets(row, streams, width):
    model_class, settings = decode_named(models, {"name": f"tdfnet-{row}"}, "model")
    with torch.device("meta"):
        model = model_class(settings, 4)
    assert model.streams == model_class.streams_of(settings) == streams
    assert sum(model.groups.values()) == width
    assert model.lengths == {name: model.paper.frames[name] for name in streams if name != "speaker"}


def test_without_me_only_the_width_of_speech_changes():
    full, without = on_meta_device(), on_meta_device(**TDFNet.presets["without_me"])
    shapes = [{name: tensor.shape for name, tensor in model.state_dict().items()} for model in (full, without)]
    assert {name for name in shapes[0] if shapes[0][name] != shapes[1][name]} == {"inputs.speech.projection.weight"}
    assert without.dims["speech"] == 128


def test_build_uses_the_sizes_of_the_streams():
    specs = {"speech": FeatureSpec(7, 50.0), "text": FeatureSpec(8, None), "speaker": FeatureSpec(2, None)}
    assert TDFNet.build(TDFNetConfig(**SMALL), specs, 2).dims == {"speech": 7, "text": 8, "speaker": 2}
    alone = TDFNetConfig(**SMALL, path="audio", mutual=False, speaker=False)
    assert TDFNet.build(alone, {"speech": FeatureSpec(7, 50.0)}, 2).dims == {"speech": 7}


def test_settings_survive_encoding_and_decoding():
    settings = TDFNetConfig(kernel=3, shared=("gru", "cnn"), speech_frames="any", feedforward="square")
    assert decode(TDFNetConfig, encode(settings), "model") == settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 5}, "heads = 5 does not divide 768"),
        ({"blocks": 9}, "cannot be halved 9 times"),
        ({"blocks": 0}, "expected 1 or more"),
        ({"kernel": 4}, "kernel = 4: expected an odd number"),
        ({"masked": True, "bidirectional": True}, "bidirectional = true makes GRUs read padding"),
        ({"path": "audio"}, "needs speech and text"),
        ({"shared": ("gru", "cnn")}, "cannot share a CNN whose kernels are their strides"),
        ({"deep_scale": "none", "embeddings": "encoded"}, "embeddings = 'encoded' needs"),
        ({"deep_scale": "none", "embeddings": "raw", "mutual": False}, "leaves the projection unused"),
    ],
)
def test_contradictory_settings_are_refused(settings, message):
    with pytest.raises(BadConfig, match=message):
        TDFNetConfig(**settings)


# The paper's equations as loops.

# Each option alone; with masks, those that involve padding.
LENGTHS = [{}, {**ANY, "speech_stride": 8}, {"layers": 2, "speech_stride": 3}, {"speech_frames": 3, "text_tokens": 2}]
OPTIONS = [
    {"path": "audio", "mutual": False, "speaker": False},
    {"path": "text", "mutual": False},
    {"deep_scale": "none", "mutual": False},
    {"deep_scale": "none", "speaker": False},
    {"projection": "both", "text_dim": 16},
    {"text_dim": 16, "gate": "scalar"},
    {"shared": ()},
    {"blocks": 3, "heads": 1, "dim": 24},
    {"literal_eq5": True},
    {"literal_eq5": True, "feedforward": "square"},
    {"mutual_layers": "one"},
    {"gate": "parts", "gate_bias": True},
    {"inner_product": True},
    {"gelu_logits": False},
    {"bidirectional": True},
    {"bidirectional": True, "gru_sizes": "same", **ANY},
]
UNDER_MASKS = [
    {"deep_scale": "first_cnn"},
    {"embeddings": "raw"},
    {"embeddings": "encoded"},
    {"primes": "before_cnn"},
    {"first_encoder": "every_block", "feedforward_scaled": True},
    {"kernel": 3, "speech_stride": 3},
    {"kernel": 5, "speech_stride": 3, "shared": ("gru", "cnn", "encoder")},
    {"gru_sizes": "same"},
    {"mutual_layers": "updated", "layers": 2},
    {"mutual_pooling": "mean"},
    {"input_norm": "standard", "positions": "sinusoids"},
]


@pytest.mark.parametrize(
    "settings",
    mostly_slow(
        [*OPTIONS, *LENGTHS, *UNDER_MASKS, *({**option, "masked": True} for option in [*LENGTHS, *UNDER_MASKS])], 8
    ),
    ids=lambda settings: "-".join(f"{key}={value}" for key, value in settings.items()) or "paper",
)
def test_outputs_and_gradients_equal_the_reference(settings):
    model = small(**settings)
    batch = small_batch(model)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    names = [name for name, _ in model.named_parameters()]
    for name in names:
        weights[name].requires_grad_()
    inputs, reference_inputs = (
        {name: s.values.clone().requires_grad_() for name, s in batch.streams.items()} for _ in range(2)
    )
    real = {
        name: [s.values.shape[1]] * 2 if s.mask is None else s.mask.sum(1).tolist() for name, s in batch.streams.items()
    }

    streams = {name: replace(stream, values=inputs[name]) for name, stream in batch.streams.items()}
    logits = model(Batch(streams))
    expected_logits = torch.stack(
        [
            reference.logits(
                weights,
                model.config,
                {name: values[row] for name, values in reference_inputs.items()},
                {name: counts[row] for name, counts in real.items()},
            )
            for row in range(2)
        ]
    )
    torch.testing.assert_close(logits, expected_logits, atol=1e-10, rtol=0)

    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ours = torch.autograd.grad((logits * direction).sum(), [*model.parameters(), *inputs.values()])
    theirs = torch.autograd.grad(
        (expected_logits * direction).sum(),
        [*(weights[name] for name in names), *reference_inputs.values()],
        allow_unused=True,
    )
    for name, gradient, expected in zip([*names, *inputs], ours, theirs, strict=True):
        expected = torch.zeros_like(gradient) if expected is None else expected
        torch.testing.assert_close(
            gradient, expected, atol=1e-10, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )


# Padding and explanations.


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{"speech_stride": 8}, {"kernel": 3, "speech_stride": 3}, {"first_encoder": "every_block", "kernel": 5}],
    ids=["stride", "kernel 3", "kernel 5"],
)
def test_padding_changes_nothing_even_in_utterances_shorter_than_a_kernel(settings):
    model = small(masked=True, input_norm="standard", blocks=2, **ANY, **settings)
    batch = small_batch(model, [(17, 9), (1, 1), (7, 2), (9, 8)])
    logits = model(batch)
    longer = {name: stream.pad(31) if stream.has_time else stream for name, stream in batch.streams.items()}
    torch.testing.assert_close(model(Batch(longer)), logits, atol=1e-12, rtol=0)
    alone = torch.cat([model(batch[row]) for row in range(4)])
    torch.testing.assert_close(alone, logits, atol=1e-12, rtol=0)


def test_masks_change_nothing_without_padding():
    masked, unmasked = (small(speech_frames=64, text_tokens=16, masked=masked) for masked in (True, False))
    batch = small_batch(masked, [(64, 16), (64, 16)])
    torch.testing.assert_close(masked(batch), unmasked(batch), atol=1e-12, rtol=0)


def test_the_first_block_outputs_64_frames_of_both_and_the_second_32():
    model = small(speech_frames=512, text_tokens=128, speech_stride=8)
    for path, frames in (("speech", 512), ("text", 128)):
        first = model.blocks[0](torch.randn(1, frames, 16).double(), None, path)
        assert first.narrowed.shape == first.output.shape == (1, 64, 8)
        assert model.blocks[1](first.output, None, path).output.shape == (1, 32, 4)


def test_o_contains_the_unchanged_speaker_vector_and_every_group_in_order():
    model = small()
    batch = small_batch(model)
    parts = dict(zip(model.groups, model.fuse(batch).split(tuple(model.groups.values()), dim=1), strict=True))
    torch.testing.assert_close(parts["S"], batch.streams["speaker"].values, atol=0, rtol=0)
    text = model.inputs["text"](batch.streams["text"].pad_or_trim(5).values)
    torch.testing.assert_close(parts["T"], torch.cat([text.mean(dim=1), text.amax(dim=1)], dim=1), atol=1e-12, rtol=0)


@pytest.mark.parametrize("gate", ["full", "parts", "scalar"])
def test_explanations_have_the_gate_and_the_attention(gate):
    model = small(masked=True, layers=2, gate=gate, **ANY)
    batch = small_batch(model)
    explanation = model.explain(batch)
    widths = model.groups
    assert explanation["gate"].shape == (2, {"full": sum(widths.values()), "parts": len(widths), "scalar": 1}[gate])
    torch.testing.assert_close(
        nn.functional.gelu(model.classifier(explanation["embedding"])), model(batch), atol=1e-12, rtol=0
    )
    assert explanation["speech"].shape[1] == sum(width for name, width in widths.items() if name[0] in "AD")
    assert explanation["text"].shape[1] == sum(width for name, width in widths.items() if name[0] in "TH")
    shapes = {"attention_speech_to_text": (7, 4), "attention_text_to_speech": (4, 7), "attention_joint": (11, 11)}
    for name, shape in shapes.items():
        assert explanation[name].shape == (2, 2, 2, *shape)  # utterances, layers, heads, queries, keys
        torch.testing.assert_close(
            explanation[name].sum(dim=4), torch.ones_like(explanation[name][..., 0]), atol=1e-12, rtol=0
        )
    assert explanation["attention_speech_to_text"][1, ..., 3:].max() == 0  # the second utterance has three tokens
    assert explanation["attention_joint"][1, ..., 2:7].max() == 0  # and two frames


def test_mutual_attention_has_queries_of_speech_and_keys_of_text():
    model = small(**ANY)
    batch = small_batch(model, [(7, 4)])
    _, speech, _ = model._prepare(batch.streams["speech"], "speech")
    _, text, _ = model._prepare(batch.streams["text"], "text")
    layer = model.mutual.speech_from_text[0]
    query = layer.attention.query(speech).unflatten(2, (2, 8))
    key = layer.attention.key(text).unflatten(2, (2, 8))
    weights = (torch.einsum("bqhd,bkhd->bhqk", query, key) / 8**0.5).softmax(dim=3)
    torch.testing.assert_close(model.explain(batch)["attention_speech_to_text"][:, 0], weights, atol=1e-12, rtol=0)


def test_features_are_standardized_by_the_statistics():
    model = small(masked=True, input_norm="standard", **ANY)
    batch = small_batch(model)
    statistics = {name: (torch.randn(n).double(), torch.rand(n).double() + 0.5) for name, n in model.dims.items()}
    streams = {
        name: replace(stream, values=(stream.values - statistics[name][0]) / statistics[name][1])
        for name, stream in batch.streams.items()
    }
    model.set_statistics({name: (torch.zeros(n).double(), torch.ones(n).double()) for name, n in model.dims.items()})
    expected = model(Batch(streams))
    model.set_statistics(statistics)
    torch.testing.assert_close(model(batch), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("settings", mostly_slow([*OPTIONS, *UNDER_MASKS], 5), ids=str)
def test_every_parameter_gets_a_gradient_except_inert_ones(settings):
    model = small(**{"speech_frames": 24, "text_tokens": 16, **settings})  # enough frames for every block
    model(small_batch(model, [(24, 16), (20, 16)])).square().sum().backward()
    largest = {name: parameter.grad.abs().max().item() for name, parameter in model.named_parameters()}
    reached = {name for name, gradient in largest.items() if gradient > 1e-12 * max(largest.values())}
    assert set(largest) - reached == model.inert_parameters()


def test_the_small_preset_is_small_and_takes_any_length():
    model_class, settings = decode_named(models, {"name": "tdfnet-small"}, "model")
    model = model_class(settings, 6)
    assert parameters(model) < 2_000_000
    assert not model.lengths
    assert settings.masked
    assert settings.input_norm == "standard"


class FromTensors(nn.Module):
    """TDFNet with tensors as inputs, as an exporter needs it."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, speech, speech_mask):
        return self.model(Batch({"speech": Stream(speech, speech_mask)}))


AUDIO = {"path": "audio", "mutual": False, "speaker": False}


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"masked": True, "gate": "parts", "speech_stride": 8, **AUDIO, **ANY},
        {"bidirectional": True, "kernel": 3, **AUDIO},
    ],
    ids=["any length", "own length"],
)
def test_onnx_equals_torch_with_two_blocks(settings, tmp_path):
    network = FromTensors(small(**settings).float()).eval()

    def tensors(*lengths):
        speech = small_batch(network.model, lengths, dtype=torch.float32).streams["speech"]
        return {"speech": speech.values, "speech_mask": speech.mask}

    axes = {name: {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC} for name in tensors((1, 1))}
    with shapes_unchecked(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # the exporter's own warnings
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            network,
            kwargs=tensors((40, 11), (31, 13)),
            dynamo=True,
            dynamic_shapes=axes,
            output_names=["logits"],
        )
    program.save(tmp_path / "tdfnet.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "tdfnet.onnx")
    for lengths in ([(5, 3), (1, 1), (4, 2)], [(57, 20), (7, 24)], [(130, 9)]):
        inputs = tensors(*lengths)
        (logits,) = session.run(["logits"], {name: x.numpy() for name, x in inputs.items()})
        with torch.inference_mode():
            torch.testing.assert_close(torch.from_numpy(logits), network(**inputs), atol=1e-4, rtol=0)
