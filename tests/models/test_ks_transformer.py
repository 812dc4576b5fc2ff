"""KS-Transformer: a reference written as loops, the authors' parameter counts, and the paper's statements on its
attention."""

import contextlib
import io
import logging
import warnings
from dataclasses import asdict, replace

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from affekt.batch import Batch, Stream
from affekt.config import decode_named
from affekt.errors import BadConfig
from affekt.models import models
from affekt.models.base import FeatureSpec
from affekt.models.ks_transformer import attention
from affekt.models.ks_transformer.attention import KeySparseAttention
from affekt.models.ks_transformer.kernel import KeySelection, attend_to_selected, select_keys
from affekt.models.ks_transformer.model import KSTransformer, KSTransformerConfig
from tests.conftest import shapes_unchecked
from tests.contracts.builders import NUM_EMOTIONS, synthetic_batch, tiny, with_noise_in_the_padding
from tests.models.references import ks_transformer as reference
from tests.samples_of_tables import mostly_slow

AUTHORS = {"masked": "authors", "speech_frames": 7, "text_frames": 4}
SPECS = {"speech": FeatureSpec(6, 50.0), "text": FeatureSpec(8, None)}


def network(**changes):
    return tiny("ks_transformer", **changes)


def batch_of(model, speech, text, seed=0):
    """Return padded utterances of these lengths, with features so different that no two keys tie."""
    generator = torch.Generator().manual_seed(seed)
    streams = {}
    for name, lengths in (("speech", speech), ("text", text)):
        if name in model.streams:
            mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
            values = torch.randn(*mask.shape, model.dims[name], generator=generator, dtype=torch.float64)
            streams[name] = Stream(values * mask.unsqueeze(2), mask)
    return Batch(streams)


@pytest.mark.parametrize(
    "changes",
    mostly_slow(
        [
            {},
            {"ccabs": 2, "extraction_layers": 2, "fusion_layers": 2},
            {"ccabs": 0},
            {"extraction_layers": 0},
            {"fusion_layers": 0},
            {"modalities": "speech"},
            {"modalities": "text"},
            {"skip": "single"},
            {"positions": "none"},
            {"positions": "random_frozen", "position_rows": 9},
            {"positions": "random_frozen", "position_rows": 9, "position_entry": "input"},
            {"position_entry": "input"},
            {"value_positions": True},
            {"stack_norms": False},
            {"attention_scale": "model"},
            {"kept_fraction": 0.3},
            {"speech_stride": 2},
            {"hidden": (9, 5)},
            {"input_norm": "none", "speech_width": None},
            AUTHORS,
            {**AUTHORS, "kept_fraction": 0.8, "skip": "single"},
            {**AUTHORS, "positions": "random_frozen", "position_rows": 7},
            {**AUTHORS, "masked": False},
            {**AUTHORS, "masked": True, "input_norm": "none"},
        ],
        6,
    ),
    ids=str,
)
def test_outputs_and_gradients_equal_the_reference(changes):
    model = network(**changes)
    batch = batch_of(model, [9, 5, 1], [5, 2, 4])
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    learned = dict(model.named_parameters())
    for name in learned:
        weights[name].requires_grad_()
    inputs = {name: stream.values.clone().requires_grad_() for name, stream in batch.streams.items()}
    reference_inputs = {name: stream.values.clone().requires_grad_() for name, stream in batch.streams.items()}
    logits = model(Batch({name: replace(stream, values=inputs[name]) for name, stream in batch.streams.items()}))
    lengths = {name: stream.lengths().tolist() for name, stream in batch.streams.items()}
    alone = [{name: reference_inputs[name][row, : lengths[name][row]] for name in reference_inputs} for row in range(3)]
    expected = reference.logits(weights, asdict(model.config), alone)
    torch.testing.assert_close(logits, expected, atol=1e-10, rtol=0)

    direction = torch.randn(3, NUM_EMOTIONS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours = torch.autograd.grad((logits * direction).sum(), [*learned.values(), *inputs.values()])
    theirs = torch.autograd.grad(
        (expected * direction).sum(), [*(weights[n] for n in learned), *reference_inputs.values()]
    )
    for name, a, b in zip([*learned, *inputs], ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


def weights_of(rows):
    """Return attention weights of one utterance and one head."""
    return torch.tensor(rows, dtype=torch.float64)[None, None]


def test_half_of_the_keys_are_kept_by_the_sum_of_their_weights():
    weights = weights_of([[0.1, 0.2, 0.3, 0.25, 0.15], [0.3, 0.1, 0.2, 0.1, 0.3]])  # sums .4 .3 .5 .35 .45
    kept = select_keys(weights, 0.5)[0, 0]  # 2 of 5: a half is rounded down
    assert kept.tolist() == [False, False, True, False, True]
    assert select_keys(weights, 0.6)[0, 0].tolist() == [True, False, True, False, True]
    assert select_keys(weights, 1.0).all()


def test_ties_are_all_kept():
    assert select_keys(weights_of([[0.25, 0.5, 0.25]]), 2 / 3)[0, 0].tolist() == [True, True, True]
    assert select_keys(weights_of([[0.25, 0.25, 0.25, 0.25]]), 0.5).all()


def test_keys_are_selected_for_each_head_and_utterance():
    weights = torch.tensor([[[0.9, 0.1]], [[0.2, 0.8]]], dtype=torch.float64)
    expected = [[True, False], [False, True]]
    assert select_keys(weights[None], 0.5)[0].tolist() == expected
    assert select_keys(weights[:, None], 0.5)[:, 0].tolist() == expected


def test_a_single_key_is_kept():
    assert select_keys(weights_of([[1.0], [1.0]]), 0.5).all()


def test_without_masks_padding_counts_in_the_selection_of_keys():
    weights = weights_of([[0.6, 0.4, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    keys, queries = torch.tensor([[True, True, False, False]]), torch.tensor([[True, False]])
    assert select_keys(weights[..., :2], 0.5)[0, 0].tolist() == [False, True]
    assert select_keys(weights[..., :2], 0.5, queries=queries)[0, 0].tolist() == [True, False]
    assert select_keys(weights, 0.75)[0, 0].tolist() == [True, True, True, True]  # the third largest sum is 0
    assert select_keys(weights, 0.5, queries=queries, keys=keys)[0, 0].tolist() == [True, False, False, False]


def test_no_key_is_kept_if_none_is_real():
    weights, none = weights_of([[0.5, 0.5]]), torch.zeros(1, 2, dtype=torch.bool)
    assert not select_keys(weights, 0.5, keys=none).any()


@pytest.mark.parametrize("keys", [1, 2, 7, 20, 21])
def test_the_selection_equals_the_reference(keys):
    weights = torch.rand(3, 2, 5, keys, generator=torch.Generator().manual_seed(keys), dtype=torch.float64)
    kept = select_keys(weights, 0.5)
    for utterance in range(3):
        for head in range(2):
            assert kept[utterance, head].tolist() == reference.kept_of(weights[utterance, head].tolist(), 0.5)
    assert (kept.sum(dim=2) == max(1, keys // 2)).all()


def test_a_fraction_of_one_is_vanilla_attention():
    sparse, vanilla = KeySparseAttention(8, 2, fraction=1.0).double(), KeySparseAttention(8, 2, fraction=None).double()
    vanilla.load_state_dict(sparse.state_dict())
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(sparse(x, x, x), vanilla(x, x, x), atol=0, rtol=0)


@pytest.fixture
def always_selecting(monkeypatch):
    """Attend to only the kept keys, at any size."""
    monkeypatch.setattr(attention, "MIN_SCORES", 0)


def both_ways(monkeypatch, layer, *inputs):
    """Return outputs and all gradients twice: with all keys, the dropped ones times zero; and with only the kept keys."""
    results = []
    for min_scores in (10**9, 0):
        monkeypatch.setattr(attention, "MIN_SCORES", min_scores)
        output = layer(*inputs)
        differentiated = [*inputs[:2], *layer.parameters()]
        results.append([output, *torch.autograd.grad(output.sin().sum(), differentiated)])
    return results


@pytest.mark.parametrize("masks", ["none", "keys", "keys and queries"])
@pytest.mark.parametrize("fraction", [0.5, 0.3, 1.0, None])
@pytest.mark.parametrize("sizes", [(1, 1), (7, 4), (4, 9), (12, 12)])
def test_selected_keys_give_the_same_as_all_keys(monkeypatch, fraction, masks, sizes):
    """The batch has a full utterance, a padded one, and one without any key or query."""
    torch.manual_seed(0)
    layer = KeySparseAttention(8, 2, key_dim=5, fraction=fraction).double()
    x, context = (torch.randn(3, size, dim, dtype=torch.float64) for size, dim in zip(sizes, (8, 5), strict=True))
    queries, keys = (torch.arange(size) < torch.tensor([size, (size + 1) // 2, 0])[:, None] for size in sizes)
    masks = {"none": (), "keys": (keys,), "keys and queries": (keys, queries)}[masks]
    dense, sparse = both_ways(monkeypatch, layer, x.requires_grad_(), context.requires_grad_(), context, *masks)
    for x, y in zip(dense, sparse, strict=True):
        torch.testing.assert_close(x, y, atol=1e-12, rtol=0)


@pytest.mark.slow
@pytest.mark.usefixtures("always_selecting")
@pytest.mark.parametrize("changes", [{"ccabs": 2}, AUTHORS, {**AUTHORS, "masked": False}], ids=str)
def test_with_selected_keys_the_network_equals_the_reference(changes):
    test_outputs_and_gradients_equal_the_reference(changes)


@pytest.mark.usefixtures("always_selecting")
def test_with_selected_keys_ties_are_all_kept():
    attention = KeySparseAttention(8, 2).double()
    nn.init.zeros_(attention.key.weight)  # all keys are equal: every weight is 1 / 6
    x = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = attention.output(attention.value(x).mean(dim=1, keepdim=True).expand(-1, 6, -1))
    torch.testing.assert_close(attention(x, x, x), expected, atol=1e-12, rtol=0)


@pytest.mark.usefixtures("always_selecting")
def test_recording_the_attention_does_not_change_the_output():
    attention, record = KeySparseAttention(8, 2).double(), []
    x = torch.randn(2, 9, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(attention(x, x, x, record=record), attention(x, x, x), atol=1e-12, rtol=0)
    assert record[0].kept.sum(dim=2).eq(4).all()


def selected_attention(**settings):
    """Attend to the kept keys, with 40 queries, 60 keys and values of one."""
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(2, size, 8, generator=generator, dtype=torch.float64) for size in (40, 60))
    return attend_to_selected(query, key, torch.ones_like(key), KeySelection(0.5), heads=2, scale=0.5, **settings)


def test_dropout_has_its_probability_and_rescales_the_others():
    torch.manual_seed(0)
    whole = selected_attention()
    mean = torch.stack([selected_attention(dropout=0.3) for _ in range(200)]).mean(dim=0)
    torch.testing.assert_close(mean, whole, atol=0, rtol=0.1)
    torch.testing.assert_close(mean.mean(), whole.mean(), atol=0, rtol=0.003)
    assert selected_attention(dropout=1.0).eq(0).all()
    # If all keys of a query are equal, the output counts the dropped weights.
    equal_frames = torch.zeros(1, 400, 2)
    counted = attend_to_selected(
        equal_frames, equal_frames, torch.ones(1, 400, 2), KeySelection(0.5), heads=1, scale=1.0, dropout=0.25
    )
    dropped = (1 - counted[..., 0] * 0.75) * 400
    assert dropped.mean().item() == pytest.approx(100, abs=1)
    assert dropped.std().item() == pytest.approx((400 * 0.25 * 0.75) ** 0.5, rel=0.15)


def test_dropout_draws_from_torchs_generator():
    draws = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        draws.append(selected_attention(dropout=0.3))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_gradients_use_the_same_dropout_as_the_output(dropout):
    def attend(*inputs):
        torch.manual_seed(1)
        return attend_to_selected(*inputs, KeySelection(0.5), heads=2, scale=0.7, dropout=dropout)

    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.randn(2, size, 4, generator=generator, dtype=torch.float64, requires_grad=True) for size in (3, 5, 5)
    ]
    assert torch.autograd.gradcheck(attend, inputs)


@pytest.mark.usefixtures("always_selecting")
def test_16_bit_weights_are_summed_in_32_bits():
    """Half of the keys are kept, as in the paper: in 16 bits dozens of sums would tie."""
    weights = torch.randn(1, 2, 400, 100, generator=torch.Generator().manual_seed(0)).softmax(dim=3).bfloat16()
    assert (select_keys(weights, 0.5).sum(dim=2) - 50).abs().max() <= 1
    attention, x = KeySparseAttention(16, 2), torch.randn(2, 50, 16, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        output = attention(x.requires_grad_(), x, x)
    output.float().sum().backward()
    assert (output - attention(x, x, x)).abs().max() < 0.05
    assert x.grad.isfinite().all()


def parameters(**changes):
    with torch.device("meta"):
        model = KSTransformer(KSTransformerConfig(**changes), num_emotions=4)
    return sum(parameter.numel() for parameter in model.parameters()), model


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 85_324_676),
        ({"ccabs": 0}, 85_324_676 - 9_478_656 - 28_385_280),
        ({"ccabs": 1}, 85_324_676 - (9_478_656 + 28_385_280) // 3 * 2),
        ({"ccabs": 2}, 85_324_676 - (9_478_656 + 28_385_280) // 3),
        ({"extraction_layers": 0}, 85_324_676 - 6_578_944 - 26_265_088),
        ({"fusion_layers": 0}, 85_324_676 - 2_632_192 - 10_507_264),
        # The classifier halves and quarters 512.
        ({"modalities": "speech"}, 6_578_944 + 2_632_192 + 513 * 256 + 257 * 128 + 129 * 4),
    ],
    ids=str,
)
def test_parameters_of_the_papers_network_and_of_its_ablations(changes, count):
    assert parameters(**changes)[0] == count


def test_each_module_has_as_many_parameters_as_in_the_authors_code():
    model = parameters()[1]
    parts = {
        "extraction.speech": 6_578_944,
        "extraction.text": 26_265_088,
        "interaction.speech": 9_478_656,
        "interaction.text": 28_385_280,
        "fusion.speech": 2_632_192,
        "fusion.text": 10_507_264,
        "classifier": 1_477_252,
    }
    counts = {name: sum(p.numel() for p in model.get_submodule(name).parameters()) for name in parts}
    assert counts == parts


def test_the_authors_tables_of_positions_are_counted_but_not_trained():
    count, model = parameters(**KSTransformer.presets["authors_code"])
    assert count == 85_324_676
    assert count + sum(buffer.numel() for buffer in model.buffers()) == 119_116_676


def test_the_preset_paper_is_the_default():
    assert KSTransformerConfig(**KSTransformer.presets["paper"]) == KSTransformerConfig()
    assert KSTransformerConfig(**KSTransformer.presets["authors_code"]) == KSTransformerConfig(
        positions="random_frozen"
    )
    assert parameters()[1].lengths == {"speech": 460, "text": 20}


@pytest.mark.parametrize("preset", ["paper", "authors_code", "small"])
def test_build_sets_the_sizes_of_the_streams(preset):
    config = KSTransformerConfig(**{"heads": 2, **KSTransformer.presets[preset]})
    with torch.device("meta"):
        model = KSTransformer.build(config, SPECS, NUM_EMOTIONS)
    assert model.dims == {"speech": 6, "text": 8}
    assert model.output_layer.weight.shape[0] == NUM_EMOTIONS


def test_one_modality_is_enough():
    config = KSTransformerConfig(**{**KSTransformer.presets["small"], "modalities": "text"})
    model = KSTransformer.build(config, {"text": SPECS["text"]}, NUM_EMOTIONS)
    assert model.streams == KSTransformer.streams_of(config) == ("text",)
    assert model(Batch({"text": Stream(torch.randn(2, 3, 8))})).shape == (2, NUM_EMOTIONS)


def test_invalid_settings_are_refused():
    with pytest.raises(
        BadConfig, match="heads = 8 does not divide the width of speech, 50: set heads, or speech_width"
    ):
        KSTransformerConfig(speech_dim=50)
    for fraction in (0.0, 1.5):
        with pytest.raises(BadConfig, match=r"kept_fraction = .* above 0 and up to 1"):
            KSTransformerConfig(kept_fraction=fraction)
    model = network(positions="random_frozen", position_rows=5)
    with pytest.raises(BadConfig, match="9 frames, but the table of positions has 5 rows"):
        model(batch_of(model, [9], [4]))


def test_matrices_are_initialized_as_in_the_authors_code():
    torch.manual_seed(0)
    attention = tuple(
        KSTransformer(KSTransformerConfig(**{**KSTransformer.presets["small"], "text_width": 64}), 4)
        .get_submodule(f"interaction.speech.0.{half}.layers.0.attention")
        .key.weight.abs()
        .max()
        .item()
        for half in ("own", "cross")
    )
    # Xavier's bound is sqrt(6 / (inputs + outputs)), with 3 x 128 outputs if query, key and value are one matrix.
    assert attention == pytest.approx(((6 / 512) ** 0.5, (6 / 192) ** 0.5), rel=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("masked", ["authors", False])
def test_at_a_fixed_length_padding_and_later_frames_have_no_effect(masked):
    model = network(**{**AUTHORS, "masked": masked})
    batch = batch_of(model, [9, 5], [5, 2])
    torch.testing.assert_close(model(batch), model(with_noise_in_the_padding(batch.pad(30))), atol=1e-12, rtol=0)
    alone = torch.cat([model(batch[0]), model(batch[1])])
    torch.testing.assert_close(model(batch), alone, atol=1e-12, rtol=0)


@pytest.mark.parametrize("masked", ["authors", False])
def test_without_masks_padding_has_an_effect(masked):
    model = network(masked=masked)
    batch = batch_of(model, [9, 5], [5, 2])
    assert (model(batch) - model(batch.pad(to=20))).abs().max() > 1e-6


def test_padding_may_be_anything_and_text_may_be_empty():
    model = network()
    batch = batch_of(model, [9, 5, 1], [5, 2, 0])
    text = batch.streams["text"]
    odd = replace(text, values=text.values.masked_fill(~text.mask[:, :, None], float("nan")))
    other = Batch({"speech": batch.streams["speech"].pad(14), "text": odd.pad(8)})
    assert model(batch).isfinite().all()
    torch.testing.assert_close(model(batch), model(other), atol=1e-12, rtol=0)


def test_text_affects_speech_only_through_the_interaction():
    for ccabs, interacts in ((0, False), (1, True)):
        model = network(ccabs=ccabs)
        batch = batch_of(model, [6, 6], [4, 4])
        other = Batch({**batch.streams, "text": batch_of(model, [6, 6], [4, 4], seed=1).streams["text"]})
        half = model.config.width("speech")
        assert (model.embed(batch) - model.embed(other))[:, :half].abs().max().item() > 1e-6 or not interacts
        assert (model.embed(batch) - model.embed(other))[:, half:].abs().max() > 1e-6
        same = torch.equal(model.embed(batch)[:, :half], model.embed(other)[:, :half])
        assert same != interacts


def test_statistics_standardize_each_stream_and_leave_padding_at_zero():
    model = network(**AUTHORS)
    batch = batch_of(model, [7, 5], [4, 2])
    model.set_statistics({name: (torch.ones(dim), torch.full((dim,), 2.0)) for name, dim in model.dims.items()})
    plain = network(**AUTHORS, input_norm="none")
    plain.load_state_dict({key: value for key, value in model.state_dict().items() if key in plain.state_dict()})
    standard = {
        name: replace(stream, values=(stream.values - 1) / 2 * stream.mask[:, :, None])
        for name, stream in batch.streams.items()
    }
    torch.testing.assert_close(model(batch), plain(Batch(standard)), atol=1e-12, rtol=0)


def test_explanations_agree_with_the_network():
    model = network(ccabs=2)
    batch = batch_of(model, [9, 5], [5, 2])
    explanation = model.explain(batch)
    torch.testing.assert_close(model.classifier(explanation["embedding"]), model(batch), atol=0, rtol=0)
    assert explanation["cross_text_vanilla"].shape == (2, 2, 2, 5, 9)  # batch, CCABs, heads, tokens, frames
    assert explanation["own_speech_kept"].shape == (2, 2, 2, 9)
    for name in ("cross_speech", "cross_text", "own_speech", "own_text", "fusion_speech", "fusion_text"):
        vanilla, kept, sparse = (explanation[f"{name}_{kind}"] for kind in ("vanilla", "kept", "sparse"))
        torch.testing.assert_close(vanilla.sum(dim=4), torch.ones_like(vanilla[..., 0]))
        torch.testing.assert_close(sparse, torch.where(kept.unsqueeze(3), vanilla, 0.0), atol=0, rtol=0)
        real = batch.streams[
            name.split("_")[1] if "cross" not in name else reference.OTHER[name.split("_")[1]]
        ].lengths()
        assert (kept.sum(dim=3) == (real // 2).clamp(min=1)[:, None, None]).all()
    assert explanation["extraction_text_kept"].all()
    # Before the interaction the embedding of speech does not depend on the text.
    alone = Batch({**batch.streams, "text": batch_of(model, [9, 5], [5, 2], seed=1).streams["text"]})
    torch.testing.assert_close(
        model.explain(alone)["speech_embedding"], explanation["speech_embedding"], atol=0, rtol=0
    )


def test_each_dropout_acts_in_training_only():
    for setting in ("dropout", "attention_dropout", "classifier_dropout"):
        no_dropout = dict.fromkeys(("dropout", "attention_dropout", "classifier_dropout"), 0.0)
        model = network(**{**no_dropout, setting: 0.5})
        batch = batch_of(model, [9, 5], [5, 2])
        assert torch.equal(model(batch), model(batch))
        model.train()
        assert not torch.equal(model(batch), model(batch))


class FromTensors(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, speech, speech_mask, text, text_mask):
        return self.model(Batch({"speech": Stream(speech, speech_mask), "text": Stream(text, text_mask)}))


def export_and_load(model, path):
    tensors = [
        tensor for stream in synthetic_batch(model, [9, 6]).streams.values() for tensor in (stream.values, stream.mask)
    ]
    example = tuple(tensor.float() if tensor.is_floating_point() else tensor for tensor in tensors)
    dynamic = torch.export.Dim.DYNAMIC
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), shapes_unchecked(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's own warnings
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            FromTensors(model).eval(),
            example,
            dynamo=True,
            dynamic_shapes=tuple({0: dynamic, 1: dynamic} for _ in example),
            input_names=["speech", "speech_mask", "text", "text_mask"],
        )
    program.save(path)
    return onnxruntime.InferenceSession(path)


@pytest.mark.slow
@pytest.mark.usefixtures("always_selecting")  # an exported graph never selects, since it serves all lengths
def test_onnx_equals_torch_at_three_lengths_with_the_authors_choices(tmp_path):
    few_layers = {"extraction_layers": 0, "fusion_layers": 0}  # exporting takes seconds for each
    model = network(**AUTHORS, positions="random_frozen", position_rows=9, **few_layers).float()
    session = export_and_load(model, tmp_path / "model.onnx")
    for speech, text in (([12, 9], [7, 3]), ([5], [2]), ([33, 1, 20], [5, 11, 1])):
        batch = batch_of(model, speech, text).to(torch.float32)
        feeds = {
            f"{name}{suffix}": tensor.numpy()
            for name, stream in batch.streams.items()
            for suffix, tensor in (("", stream.values), ("_mask", stream.mask))
        }
        (logits,) = session.run(None, feeds)
        np.testing.assert_allclose(logits, model(batch).detach().numpy(), atol=1e-4)


@pytest.mark.parametrize("masked", [True, False, "authors"])
def test_a_recipe_may_name_a_preset_and_set_masks(masked):
    section = {"name": "ks_transformer-small", "masked": masked, "text_frames": 20}
    model_class, config = decode_named(models, section, "[model]")
    assert model_class is KSTransformer
    assert config == KSTransformerConfig(**{**KSTransformer.presets["small"], "masked": masked, "text_frames": 20})
