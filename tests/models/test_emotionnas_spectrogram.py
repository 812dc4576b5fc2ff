"""EmotionNAS's spectrogram branch: operations, cells and networks as they are written out, and its architecture's weights."""

import copy

import pytest
import torch
import torch.nn.functional as F

from affekt.batch import Batch, Stream
from affekt.checkpoint import load_state, save_state
from affekt.config import decode
from affekt.errors import BadConfig
from affekt.models import models
from affekt.models.emotionnas.cells import DerivedCell, MixedOperation
from affekt.models.emotionnas.genotypes import Genotype
from affekt.models.emotionnas.network import SpectrogramBranch, SpectrogramConfig
from affekt.models.emotionnas.operations import OPERATIONS, FactorizedReduce, operation
from tests.models.emotionnas import assert_agrees, assert_onnx_equals_torch, perturbed, utterances
from tests.models.references import emotionnas_spectrogram as reference

SMALL = {"channels": 2, "nodes": 2, "frames": 8, "input_dim": 4}
# Every operation at least once, and in the reduction cell from an input and from a node.
GENES = {
    "normal": (("sep_conv_3x3", 1), ("dil_conv_5x5", 0), ("max_pool_3x3", 2), ("skip_connect", 0)),
    "reduce": (("avg_pool_3x3", 0), ("skip_connect", 1), ("sep_conv_5x5", 0), ("dil_conv_3x3", 2)),
}


def branch(seed=0, **changes):
    torch.manual_seed(seed)
    return perturbed(SpectrogramBranch(SpectrogramConfig(**{**SMALL, **changes}), 3))


def images(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(
    ("cells", "channels", "parameters"),
    [(3, 4, 72_248), (3, 6, 132_274), (4, 8, 346_092), (6, 16, 1_320_084)],
)
def test_the_searchs_network_counts_as_table_3(cells, channels, parameters):
    with torch.device("meta"):
        model = models["emotionnas-spectrogram"](SpectrogramConfig(cells=cells, channels=channels), 4)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("changes", "parameters"),
    [({"genotype": "darts-v2"}, 4_324), ({"genotype": "darts-v1"}, 4_222), ({"input_channels": 3}, 132_598)],
)
def test_other_networks_of_the_papers_size_count(changes, parameters):
    with torch.device("meta"):
        model = SpectrogramBranch(SpectrogramConfig(**changes), 4)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_a_genotype_of_the_heaviest_operation_counts():
    genes = (("sep_conv_5x5", 0), ("sep_conv_5x5", 1)) * 4
    with torch.device("meta"):
        model = SpectrogramBranch(SpectrogramConfig(genotype=Genotype(genes, genes)), 4)
    assert sum(p.numel() for p in model.parameters()) == 33_442


def test_cells_halve_the_image_at_a_third_and_at_two_thirds():
    model = SpectrogramBranch(SpectrogramConfig(genotype="darts-v2"), 4).eval()
    shapes = []
    for cell in model.cells:
        cell.register_forward_hook(lambda _module, _inputs, output: shapes.append(tuple(output.shape[1:])))
    with torch.no_grad():
        model(Batch({"spectrogram": Stream(torch.zeros(1, 140, 140))}))
    assert shapes == [(24, 140, 140), (48, 70, 70), (96, 35, 35)]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("searched", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_as_written_out(name, stride, searched, training):
    torch.manual_seed(0)
    one = perturbed(operation(name, 2, stride, searched=searched)).train(training)
    tensors = {key: tensor.clone() for key, tensor in one.state_dict().items()}
    x = images(2, 2, 6, 4)
    theirs = reference.operated(
        reference.NAMES.get(name, "none"), list(x.unbind(1)), reference.Weights(tensors, "", training), stride, searched
    )
    torch.testing.assert_close(one(x), torch.stack(theirs, dim=1), atol=1e-10, rtol=0)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_mixed_operation_is_as_written_out(stride):
    torch.manual_seed(0)
    one, alpha, x = perturbed(MixedOperation(2, stride)), images(8), images(2, 2, 4, 4)
    theirs = reference.mixed(list(x.unbind(1)), reference.Weights(one.state_dict()), alpha, stride)
    torch.testing.assert_close(one(x, alpha.softmax(dim=0)), torch.stack(theirs, dim=1), atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"training": True},
        {"masked": True, "nodes": 1},
        {"masked": True, "input_norm": "none", "training": True, "nodes": 1},
        {"input_norm": "none", "nodes": 1},
        {"cells": 4, "nodes": 1},
        {"cells": 1, "nodes": 3},
        {"input_channels": 3, "stem_multiplier": 1, "shrink": 2, "frames": 9, "input_dim": 8, "nodes": 1},
        {"genotype": Genotype(**GENES)},
        {"genotype": Genotype(**GENES), "training": True, "masked": True, "cells": 4},
    ],
    ids=str,
)
def test_networks_and_all_their_gradients_are_as_written_out(changes):
    changes = dict(changes)
    training = changes.pop("training", False)
    model = branch(**changes).train(training)
    config = model.config
    values, mask = utterances([9, 5, 3], config.input_dim, noise=2.0, length=11)

    def written_out(weights, given):
        return reference.logits(
            weights,
            given["spectrogram"],
            mask,
            cells=config.cells,
            nodes=config.nodes,
            frames=config.frames,
            masked=config.masked,
            genes=GENES if config.genotype else None,
            training=training,
            shrink=config.shrink,
            channels=config.input_channels,
        )

    assert_agrees(model, written_out, {"spectrogram": (values, mask)})


def test_the_architectures_weights_are_no_parameters_but_take_a_gradient_and_are_saved(tmp_path):
    model, other = branch(), branch(seed=1)
    assert not {"architecture.normal", "architecture.reduce"} & set(dict(model.named_parameters()))
    values, mask = utterances([8, 6], 4)
    batch = Batch({"spectrogram": Stream(values, mask)})
    F.cross_entropy(model(batch), torch.tensor([0, 1])).backward()
    assert all(alpha.grad.abs().max() > 1e-6 for alpha in model.alphas().values())
    save_state(dict(model.state_dict()), tmp_path / "weights.safetensors")
    other.load_state_dict(load_state(tmp_path / "weights.safetensors"))
    for kind, alpha in model.alphas().items():
        torch.testing.assert_close(other.alphas()[kind], alpha, atol=0, rtol=0)
        assert other.alphas()[kind].is_leaf
        assert other.alphas()[kind].requires_grad


def test_the_architectures_weights_stay_the_same_tensors_when_moved():
    model = SpectrogramBranch(SpectrogramConfig(**SMALL), 3)
    optimizer = torch.optim.SGD(model.alphas().values(), lr=1.0)
    before = model.alphas()["normal"].detach().clone()
    model.double().to("cpu")
    values, mask = utterances([8, 6], 4)
    model(Batch({"spectrogram": Stream(values, mask)})).square().sum().backward()
    optimizer.step()
    alpha = model.alphas()["normal"]
    assert alpha.dtype == torch.float64
    torch.testing.assert_close(alpha.detach(), before.double() - alpha.grad, atol=1e-9, rtol=0)
    assert copy.deepcopy(model).alphas()["normal"].is_leaf


def test_a_network_without_memory_comes_to_life():
    with torch.device("meta"):
        model = SpectrogramBranch(SpectrogramConfig(**SMALL), 3)
    model = model.to_empty(device="cpu")
    model.load_state_dict(SpectrogramBranch(SpectrogramConfig(**SMALL), 3).state_dict())
    values, mask = utterances([8], 4)
    model(Batch({"spectrogram": Stream(values.float(), mask)})).sum().backward()
    assert model.alphas()["reduce"].grad is not None


def test_training_the_architectures_weights_alone_lowers_the_loss():
    model = branch().train()
    values, mask = utterances([8] * 12, 4)
    batch, labels = Batch({"spectrogram": Stream(values, mask)}), torch.arange(12) % 3
    optimizer = torch.optim.Adam(model.alphas().values(), lr=0.05)
    weights = copy.deepcopy(dict(model.named_parameters()))
    losses = []
    for _ in range(15):
        loss = F.cross_entropy(model(batch), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.01
    assert all(torch.equal(weights[name], parameter) for name, parameter in model.named_parameters())


def test_every_weight_of_the_searchs_network_gets_a_gradient_in_training():
    model = branch(channels=4).train()
    values, mask = utterances([8] * 6, 4)
    F.cross_entropy(model(Batch({"spectrogram": Stream(values, mask)})), torch.arange(6) % 3).backward()
    assert model.inert_parameters() == frozenset()
    assert all(parameter.grad.abs().max() > 1e-12 for parameter in model.parameters())


@pytest.mark.parametrize(
    ("normal", "reduce", "cells"), [((0, 0), (1, 1), 5), ((0, 0), (0, 0), 4), ((1, 1), (1, 0), 3), ((1, 1), (0, 0), 6)]
)
def test_what_no_node_takes_is_inert(normal, reduce, cells):
    genotype = Genotype(*(tuple(("sep_conv_3x3", source) for source in kind) for kind in (normal, reduce)))
    model = branch(nodes=1, channels=4, cells=cells, genotype=genotype).train()
    values, mask = utterances([8] * 6, 4)
    F.cross_entropy(model(Batch({"spectrogram": Stream(values, mask)})), torch.arange(6) % 3).backward()
    still = {n for n, p in model.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-12}
    assert still == model.inert_parameters() != frozenset()


def test_a_path_is_dropped_for_a_whole_utterance_and_the_identity_never():
    genes = (("sep_conv_3x3", 0), ("skip_connect", 1))
    torch.manual_seed(0)
    cell = DerivedCell((2, 2), 2, genes, reduction=False, halved=False, drop_path=0.75).double().train()
    first, second = images(40, 2, 4, 4), images(40, 2, 4, 4) + 1
    identity, path = cell.preprocess1(second), cell.edges[0](cell.preprocess0(first))
    rest = cell(first, second) - identity
    kept = rest.flatten(1).abs().amax(dim=1) > 0
    assert 2 < kept.sum() < 20
    torch.testing.assert_close(rest[kept], 4 * path[kept])
    cell.eval()
    torch.testing.assert_close(
        cell(first, second), cell.preprocess1(second) + cell.edges[0](cell.preprocess0(first)), atol=1e-12, rtol=0
    )


def test_frames_stand_along_the_height():
    model = branch(input_norm="none")
    shapes = []
    model.stem[0].register_forward_pre_hook(lambda _module, inputs: shapes.append(inputs[0]))
    values, mask = utterances([8], 4)
    model(Batch({"spectrogram": Stream(values, mask)}))
    assert torch.equal(shapes[0], values.unsqueeze(1))


def test_standardised_features_come_in_any_scale():
    model = branch(input_norm="standard", masked=True)
    plain = branch(input_norm="none", masked=True)
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("input.")})
    mean, deviation = torch.arange(4.0).double(), torch.arange(1.0, 5.0).double()
    model.set_statistics({"spectrogram": (mean, deviation)})
    values, mask = utterances([7, 3], 4)
    scaled = Batch({"spectrogram": Stream(values * deviation + mean, mask)})
    torch.testing.assert_close(model(scaled), plain(Batch({"spectrogram": Stream(values, mask)})), atol=1e-12, rtol=0)


def test_it_explains_its_architecture():
    model = branch()
    values, mask = utterances([7, 3], 4)
    explanation = model.explain(Batch({"spectrogram": Stream(values, mask)}))
    torch.testing.assert_close(
        model.classifier(explanation["embedding"]), model(Batch({"spectrogram": Stream(values, mask)}))
    )
    for kind in ("normal", "reduce"):
        shares = explanation[f"{kind}_shares"]
        assert shares.shape == (5, 8)
        torch.testing.assert_close(shares.sum(dim=1), torch.ones(5).double())


def test_the_onnx_graph_of_the_searchs_network_equals_torch_at_any_length(tmp_path):
    assert_onnx_equals_torch(branch(nodes=1, cells=1), tmp_path / "model.onnx")


@pytest.mark.parametrize("name", ["emotionnas-spectrogram", "emotionnas-spectrogram-small"])
def test_the_small_preset_is_quick_and_the_default_is_not_small(name):
    kind, preset = models.resolve(name)
    with torch.device("meta"):
        model = kind(decode(kind.Config, preset, name), 4)
    assert (sum(p.numel() for p in model.parameters()) < 40_000) == name.endswith("small")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"frames": 139},
            "frames = 139 with shrink = 1 gives an image side of 139, which 2 reduction .* multiple of 4",
        ),
        ({"input_dim": 70}, "input_dim = 70 .* give a multiple of 4"),
        ({"shrink": 2}, "frames = 140 with shrink = 2 gives an image side of 70, .* give a multiple of 8"),
        ({"nodes": 3, "genotype": "darts-v2"}, "nodes = 3, but the genotype has 4"),
        ({"genotype": "dart-v2"}, "there is no genotype 'dart-v2'; did you mean 'darts-v2'"),
        ({"drop_path": 0.1}, "drop_path is for a derived network: set genotype"),
        ({"cells": 0}, "cells = 0: expected 1 or more"),
    ],
)
def test_settings_that_make_no_network_are_refused(settings, message):
    with pytest.raises(BadConfig, match=message):
        SpectrogramConfig(**settings)


def test_an_odd_image_cannot_be_halved():
    with pytest.raises(BadConfig, match="an image of 5 x 4 cannot be halved: give even height and width"):
        FactorizedReduce(2, 2, affine=True)(torch.zeros(1, 2, 5, 4))
