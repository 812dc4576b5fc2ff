"""EmotionNAS's spectrogram branch: operations, cells and networks equal the reference; its architecture weights."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from affekt.batch import Batch, Stream
from affekt.config import decode
from affekt.errors import BadConfig
from affekt.models import models
from affekt.models.emotionnas.cells import DerivedCell, SearchCell
from affekt.models.emotionnas.convolutions import depthwise, pointwise
from affekt.models.emotionnas.genotypes import Genotype
from affekt.models.emotionnas.mixed_ops import MixedEdges
from affekt.models.emotionnas.operations import OPERATIONS, FactorizedReduce, make_operation
from affekt.models.emotionnas.spectrogram import SpectrogramBranch, SpectrogramBranchConfig
from affekt.training.checkpoint import load_state, save_state
from tests.models.emotionnas import assert_agrees, assert_onnx_equals_torch, perturbed, utterances
from tests.models.references import emotionnas_spectrogram as reference
from tests.samples_of_tables import mostly_slow

SMALL = {"channels": 2, "nodes": 2, "frames": 8, "input_dim": 4}
# Every operation at least once, and in the reduction cell from an input and from a node.
GENES = {
    "normal": (("sep_conv_3x3", 1), ("dil_conv_5x5", 0), ("max_pool_3x3", 2), ("skip_connect", 0)),
    "reduce": (("avg_pool_3x3", 0), ("skip_connect", 1), ("sep_conv_5x5", 0), ("dil_conv_3x3", 2)),
}


def branch(seed=0, **changes):
    torch.manual_seed(seed)
    return perturbed(SpectrogramBranch(SpectrogramBranchConfig(**{**SMALL, **changes}), 3))


def images(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(
    ("cells", "channels", "parameters"),
    [(3, 4, 72_248), (3, 6, 132_274), (4, 8, 346_092), (6, 16, 1_320_084)],
)
def test_supernet_parameters_are_those_of_table_3(cells, channels, parameters):
    with torch.device("meta"):
        model = models["emotionnas-spectrogram"](SpectrogramBranchConfig(cells=cells, channels=channels), 4)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("changes", "parameters"),
    [({"genotype": "darts-v2"}, 4_324), ({"genotype": "darts-v1"}, 4_222), ({"input_channels": 3}, 132_598)],
)
def test_parameters_of_other_networks(changes, parameters):
    with torch.device("meta"):
        model = SpectrogramBranch(SpectrogramBranchConfig(**changes), 4)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_parameters_of_the_largest_derived_network():
    genes = (("sep_conv_5x5", 0), ("sep_conv_5x5", 1)) * 4
    with torch.device("meta"):
        model = SpectrogramBranch(SpectrogramBranchConfig(genotype=Genotype(genes, genes)), 4)
    assert sum(p.numel() for p in model.parameters()) == 33_442


def test_cells_halve_the_image_at_a_third_and_at_two_thirds():
    model = SpectrogramBranch(SpectrogramBranchConfig(genotype="darts-v2"), 4).eval()
    shapes = []
    for cell in model.cells:
        cell.register_forward_hook(lambda _module, _inputs, output: shapes.append(tuple(output.shape[1:])))
    with torch.no_grad():
        model(Batch({"spectrogram": Stream(torch.zeros(1, 140, 140))}))
    assert shapes == [(24, 140, 140), (48, 70, 70), (96, 35, 35)]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", OPERATIONS[1:])
def test_operations_equal_the_reference(name, stride, training):
    torch.manual_seed(0)
    operation = perturbed(make_operation(name, 2, stride)).train(training)
    tensors = {key: tensor.clone() for key, tensor in operation.state_dict().items()}
    x = images(2, 2, 6, 4)
    theirs = reference.apply_operation(
        reference.NAMES[name], list(x.unbind(1)), reference.Weights(tensors, "", training), stride, False
    )
    torch.testing.assert_close(operation(x), torch.stack(theirs, dim=1), atol=1e-10, rtol=0)


def reference_edges(tensors, x, alpha, stride, training):
    """Return the images of all edges, concatenated along the channels."""
    weights, edges = reference.Weights(tensors, "", training), len(alpha)
    mixed = [
        reference.apply_mixed_operation(list(x.unbind(1)), weights, alpha[edge], stride, edge, edges)
        for edge in range(edges)
    ]
    return torch.stack([channel for image in mixed for channel in image], dim=1)


def make_edges(edges, channels, stride, training=True):
    torch.manual_seed(0)
    mixed_edges = perturbed(MixedEdges(edges, channels, stride)).train(training)
    return mixed_edges, {name: tensor.clone() for name, tensor in mixed_edges.state_dict().items()}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("edges", "channels", "stride"), [(1, 2, 1), (3, 2, 1), (2, 6, 1), (2, 2, 2), (1, 4, 2)])
def test_mixed_edges_equal_the_reference(edges, channels, stride, training):
    mixed_edges, tensors = make_edges(edges, channels, stride, training)
    x, alpha = images(2, channels, 6, 4), images(edges, 8)
    ours = mixed_edges(x, alpha.softmax(dim=1), [[True] * 8] * edges)
    torch.testing.assert_close(ours, reference_edges(tensors, x, alpha, stride, training), atol=1e-10, rtol=0)


@pytest.mark.parametrize("stride", [1, 2])
def test_statistics_of_an_edge_are_those_of_the_separate_operation(stride):
    mixed_edges, before = make_edges(2, 4, stride)
    x = images(3, 4, 6, 8)
    mixed_edges(x, torch.ones(2, 8).double(), [[True] * 8] * 2)
    after = reference.Weights(mixed_edges.state_dict())
    for name in OPERATIONS[1:]:
        if name == "skip_connect" and stride == 1:
            continue
        alone, short = perturbed(make_operation(name, 4, stride)), reference.NAMES[name]
        if name.endswith("pool_3x3"):
            alone = torch.nn.Sequential(alone, torch.nn.BatchNorm2d(4).double())
        norms = [key.removesuffix("running_var") for key in alone.state_dict() if key.endswith("running_var")]
        for edge in range(2):
            weights = reference.edge_weights(reference.Weights(before), short, edge, 2).tensors
            plain = {f"{norm}{key}": value for norm in norms for key, value in (("weight", 1.0), ("bias", 0.0))}
            alone.load_state_dict(weights | {k: torch.full((4,), v) for k, v in plain.items()}, strict=False)
            alone.train()(x)
            updated = reference.edge_weights(after, short, edge, 2).tensors
            for key in updated:
                torch.testing.assert_close(
                    alone.state_dict()[key], updated[key], atol=1e-12, rtol=0, msg=f"{name} {key}"
                )


ZEROS = [(0, "sep_conv_3x3"), (1, "sep_conv_3x3"), (0, "skip_connect"), (1, "max_pool_3x3"), (2, "dil_conv_5x5")]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_operations_of_zero_weight_change_nothing_and_get_no_gradient(stride, training):
    mixed_edges, tensors = make_edges(3, 2, stride, training)
    alpha = images(3, 8)
    for edge, name in ZEROS:
        alpha[edge, OPERATIONS.index(name)] = -torch.inf
    alpha.requires_grad_()
    x, weight = images(2, 2, 6, 4), mixed_edges.sep_conv_3x3[0].depthwise.weight
    factors = alpha.softmax(dim=1)
    ours = mixed_edges(x, factors, (factors != 0).tolist())
    expected = reference_edges(tensors, x, alpha, stride, training)
    torch.testing.assert_close(ours, expected, atol=1e-10, rtol=0)
    projection = images(*ours.shape)
    mine, *others = torch.autograd.grad((ours * projection).sum(), [alpha, weight], retain_graph=True)
    (theirs,) = torch.autograd.grad((expected * projection).sum(), [alpha])
    torch.testing.assert_close(mine, theirs, atol=1e-10, rtol=0)
    zero = torch.isinf(alpha.detach())
    assert (mine[zero] == 0).all()
    assert (mine[~zero].abs() > 1e-8).all()
    assert (others[0][:4] == 0).all()
    assert others[0][4:].abs().min() > 1e-8
    if training:  # nor do statistics move
        variance = mixed_edges.sep_conv_3x3[1].norm.running_var
        assert torch.equal(variance[:4], tensors["sep_conv_3x3.1.norm.running_var"][:4])
        assert (variance[4:] != tensors["sep_conv_3x3.1.norm.running_var"][4:]).all()


@pytest.mark.slow
def test_operations_of_zero_weight_are_not_computed():
    model = branch(channels=4).train()
    values, mask = utterances([8] * 3, 4)

    def cost(*names):
        with torch.no_grad():
            for alpha in model.alphas().values():
                alpha.fill_(-torch.inf)
                alpha[:, [OPERATIONS.index(name) for name in names]] = 0.0
        with FlopCounterMode(display=False) as counter:
            model(Batch({"spectrogram": Stream(values, mask)})).sum().backward()
        return counter.get_total_flops()

    alone = {name: cost(name) for name in OPERATIONS}
    assert alone["none"] < 0.3 * alone["dil_conv_3x3"]
    assert alone["none"] < alone["dil_conv_3x3"] < alone["sep_conv_3x3"] < alone["sep_conv_5x5"]
    whole = cost(*OPERATIONS)
    halves = cost("none", *OPERATIONS[1::2]), cost("none", *OPERATIONS[2::2])
    assert sum(halves) - alone["none"] == pytest.approx(whole, rel=0.1)


def test_a_cell_of_none_operations_returns_zeros():
    cell = SearchCell((2, 2), 2, 2, reduction=True, halved=False).double()
    x = images(2, 2, 6, 4)
    factors = torch.zeros(5, 8).double()
    factors[:, 0] = 1.0
    assert torch.equal(cell(x, x, factors, (factors != 0).tolist())[:, :2], torch.zeros(2, 2, 3, 2).double())


@pytest.mark.parametrize(
    "changes",
    mostly_slow(
        [
            {},
            {"training": True},
            {"masked": True, "nodes": 1},
            {"masked": True, "input_norm": "none", "training": True, "nodes": 1},
            {"input_norm": "none", "nodes": 1},
            {"cells": 4, "nodes": 1},
            {"cells": 5, "nodes": 1, "channels": 3, "training": True},
            {"cells": 6, "nodes": 1},
            {"cells": 1, "nodes": 2, "channels": 5, "training": True, "masked": True},
            {"cells": 1, "nodes": 3},
            {"input_channels": 3, "stem_multiplier": 1, "shrink": 2, "frames": 9, "input_dim": 8, "nodes": 1},
            {"genotype": Genotype(**GENES)},
            {"genotype": Genotype(**GENES), "training": True, "masked": True, "cells": 4},
        ],
        12,
    ),
    ids=str,
)
def test_logits_and_all_gradients_equal_the_reference(changes):
    changes = dict(changes)
    training = changes.pop("training", False)
    model = branch(**changes).train(training)
    config = model.config
    values, mask = utterances([9, 5, 3], config.input_dim, noise=2.0, length=11)

    def reference_logits(weights, values):
        return reference.spectrogram_logits(
            weights,
            values["spectrogram"],
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

    assert_agrees(model, reference_logits, {"spectrogram": (values, mask)})


def test_architecture_weights_are_saved_buffers_with_a_gradient(tmp_path):
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


def test_architecture_weights_stay_the_same_tensors_when_moved():
    model = SpectrogramBranch(SpectrogramBranchConfig(**SMALL), 3)
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


def test_a_meta_network_can_be_materialized_and_trained():
    with torch.device("meta"):
        model = SpectrogramBranch(SpectrogramBranchConfig(**SMALL), 3)
    model = model.to_empty(device="cpu")
    model.load_state_dict(SpectrogramBranch(SpectrogramBranchConfig(**SMALL), 3).state_dict())
    values, mask = utterances([8], 4)
    model(Batch({"spectrogram": Stream(values.float(), mask)})).sum().backward()
    assert model.alphas()["reduce"].grad is not None


@pytest.mark.slow
def test_training_only_the_architecture_weights_lowers_the_loss():
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


def test_every_weight_of_the_supernet_gets_a_gradient():
    model = branch(channels=4).train()
    values, mask = utterances([8] * 6, 4)
    F.cross_entropy(model(Batch({"spectrogram": Stream(values, mask)})), torch.arange(6) % 3).backward()
    assert model.inert_parameters() == frozenset()
    assert all(parameter.grad.abs().max() > 1e-12 for parameter in model.parameters())


@pytest.mark.parametrize(
    ("normal", "reduce", "cells"), [((0, 0), (1, 1), 5), ((0, 0), (0, 0), 4), ((1, 1), (1, 0), 3), ((1, 1), (0, 0), 6)]
)
def test_unused_inputs_and_cells_are_inert(normal, reduce, cells):
    genotype = Genotype(*(tuple(("sep_conv_3x3", source) for source in kind) for kind in (normal, reduce)))
    model = branch(nodes=1, channels=4, cells=cells, genotype=genotype).train()
    values, mask = utterances([8] * 6, 4)
    F.cross_entropy(model(Batch({"spectrogram": Stream(values, mask)})), torch.arange(6) % 3).backward()
    without_gradient = {n for n, p in model.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-12}
    assert without_gradient == model.inert_parameters() != frozenset()


def test_drop_path_drops_whole_utterances_but_no_identity():
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


def test_drop_path_rises_with_progress():
    model = branch(genotype="darts-v2", nodes=4, drop_path=0.4)
    assert {cell.drop_path for cell in model.cells} == {0.4}
    for progress in (0.0, 0.25, 1.0):
        model.set_progress(progress)
        assert {cell.drop_path for cell in model.cells} == {0.4 * progress}


def test_frames_are_the_height_of_the_image():
    model = branch(input_norm="none")
    shapes = []
    model.stem[0].register_forward_pre_hook(lambda _module, inputs: shapes.append(inputs[0]))
    values, mask = utterances([8], 4)
    model(Batch({"spectrogram": Stream(values, mask)}))
    assert torch.equal(shapes[0], values.unsqueeze(1))


def test_input_norm_removes_the_scale_of_the_features():
    model = branch(input_norm="standard", masked=True)
    plain = branch(input_norm="none", masked=True)
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("input.")})
    mean, deviation = torch.arange(4.0).double(), torch.arange(1.0, 5.0).double()
    model.set_statistics({"spectrogram": (mean, deviation)})
    values, mask = utterances([7, 3], 4)
    scaled = Batch({"spectrogram": Stream(values * deviation + mean, mask)})
    torch.testing.assert_close(model(scaled), plain(Batch({"spectrogram": Stream(values, mask)})), atol=1e-12, rtol=0)


def test_explain_returns_the_operation_weights():
    model = branch()
    values, mask = utterances([7, 3], 4)
    explanation = model.explain(Batch({"spectrogram": Stream(values, mask)}))
    torch.testing.assert_close(
        model.classifier(explanation["embedding"]), model(Batch({"spectrogram": Stream(values, mask)}))
    )
    for kind in ("normal", "reduce"):
        weights = explanation[f"{kind}_weights"]
        assert weights.shape == (5, 8)
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(5).double())


@pytest.mark.slow
def test_functional_call_and_second_order_gradients():
    model, values = branch().train(), utterances([8, 6], 4)
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    weights = [state[name].mul_(1.5).requires_grad_() for name, _ in model.named_parameters()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batch = Batch({"spectrogram": Stream(*values)})
    loss = torch.func.functional_call(model, state, (batch,)).square().sum()
    gradients = torch.autograd.grad(loss, weights, create_graph=True)
    torch.autograd.grad(sum(g.square().sum() for g in gradients), weights, allow_unused=True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert (state["stem.1.running_var"] != before["stem.1.running_var"]).all()
    other = branch().train()
    other.load_state_dict({name: tensor.detach() for name, tensor in state.items()})
    torch.testing.assert_close(other(batch).square().sum(), loss, atol=1e-12, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"genotype": "darts-v2", "nodes": 4}])
def test_backward_works_outside_autocast(changes):
    """Test as in training: the network runs under autocast, the loss and its gradients do not."""
    model = branch(**changes).float().train()
    values, mask = utterances([8, 8, 8, 8], SMALL["input_dim"])
    batch = Batch({"spectrogram": Stream(values.float(), mask)})
    with torch.autocast("cpu", torch.bfloat16):
        answer = model(batch)
    torch.testing.assert_close(answer.float(), model(batch), atol=0.2, rtol=0)
    answer.float().square().sum().backward()
    trained = {name: parameter for name, parameter in model.named_parameters() if name not in model.inert_parameters()}
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in trained.values())


def test_gradients_are_equal_with_deterministic_algorithms():
    model, values = branch().train(), utterances([8, 6], 4)
    batch = Batch({"spectrogram": Stream(*values)})
    torch.use_deterministic_algorithms(True)
    try:
        twice = [
            torch.autograd.grad(m(batch).square().sum(), list(m.alphas().values()))
            for m in (model, copy.deepcopy(model))
        ]
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(first, second) for first, second in zip(*twice, strict=True))


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("height", [2, 7, 12])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [3, 5])
def test_depthwise_equals_torch(size, stride, dilation, height, layout):
    x = images(2, 3, height, 5).contiguous(memory_format=layout).requires_grad_()
    kernels = images(3, 1, size, size).requires_grad_()
    theirs = F.conv2d(x, kernels, None, stride, dilation * (size // 2), dilation, groups=3)
    ours, projection = depthwise(x, kernels, stride, dilation), images(*theirs.shape)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
    first, second = (torch.autograd.grad(y, (x, kernels), projection, create_graph=True) for y in (ours, theirs))
    torch.testing.assert_close(first, second, atol=1e-12, rtol=0)
    first, second = (
        torch.autograd.grad(sum(g.square().sum() for g in gradients), (x, kernels)) for gradients in (first, second)
    )
    torch.testing.assert_close(first, second, atol=1e-10, rtol=0)


@pytest.mark.parametrize("batch", [2, 16])
def test_pointwise_equals_torch(batch):
    x, weight = images(batch, 6, 3, 5), images(4, 3, 1, 1)
    for image in (x, x.contiguous(memory_format=torch.channels_last)):
        torch.testing.assert_close(pointwise(image, weight, 2), F.conv2d(x, weight, groups=2), atol=1e-12, rtol=0)


@pytest.mark.slow
def test_the_onnx_graph_of_the_supernet_equals_torch_at_any_length(tmp_path):
    assert_onnx_equals_torch(branch(nodes=1, cells=1), tmp_path / "model.onnx")


@pytest.mark.parametrize("name", ["emotionnas-spectrogram", "emotionnas-spectrogram-small"])
def test_only_the_small_preset_is_small(name):
    kind, preset = models.resolve(name)
    with torch.device("meta"):
        model = kind(decode(kind.Config, preset, name), 4)
    assert (sum(p.numel() for p in model.parameters()) < 40_000) == name.endswith("small")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"frames": 139},
            "frames = 139 with shrink = 1 results in an image side of 139, which the reduction .* multiple of 4",
        ),
        ({"input_dim": 70}, "input_dim = 70 .* set a multiple of 4"),
        ({"shrink": 2}, "frames = 140 with shrink = 2 results in an image side of 70, .* set a multiple of 8"),
        ({"nodes": 3, "genotype": "darts-v2"}, "nodes = 3, but the genotype has 4"),
        ({"genotype": "dart-v2"}, "unknown genotype 'dart-v2'; did you mean 'darts-v2'"),
        ({"drop_path": 0.1}, "drop_path is for a derived network: set genotype"),
        ({"cells": 0}, "cells = 0: expected 1 or more"),
    ],
)
def test_invalid_settings_are_refused(settings, message):
    with pytest.raises(BadConfig, match=message):
        SpectrogramBranchConfig(**settings)


def test_an_odd_image_cannot_be_halved():
    with pytest.raises(BadConfig, match="an image of 5 x 4 cannot be halved"):
        FactorizedReduce(2, 2, affine=True)(torch.zeros(1, 2, 5, 4))
