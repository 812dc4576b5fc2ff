"""EmotionNAS's recurrent branch: cell graphs are checked, and layers, attention and logits equal the reference."""

import pytest
import torch
import torch.nn.functional as F

from affekt.batch import Batch, Stream
from affekt.config import decode, encode
from affekt.errors import BadConfig
from affekt.models import models
from affekt.models.emotionnas import recurrence
from affekt.models.emotionnas.cell_graphs import (
    CELL_GRAPHS,
    INPUTS,
    cell_graph_from_json,
    cell_graph_to_json,
    compile_cell_graph,
    count_states,
    idle_nodes,
)
from affekt.models.emotionnas.recurrence import Order
from affekt.models.emotionnas.recurrent import GraphCell, RecurrentBranch, RecurrentConfig, RecurrentLayer
from tests.models.emotionnas import assert_agrees, assert_onnx_equals_torch, perturbed, utterances
from tests.models.references import emotionnas_recurrent as reference

SMALL = {"layers": 2, "hidden": 3, "frames": 6, "input_dim": 4}
OF_TABLE_4 = [name for name in CELL_GRAPHS if name.startswith("id")]
# A cell graph with every operation.
ALL_OPERATIONS = {
    "a": {"op": "linear", "input": ["h_prev_1", "x", "h_prev_0"]},
    "b": {"op": "linear", "input": ["x"]},
    "c": {"op": "elementwise_sum", "input": ["a", "b", "h_prev_1"]},
    "d": {"op": "activation_leaky_relu", "input": ["c"]},
    "e": {"op": "elementwise_prod", "input": ["a", "b", "d"]},
    "z": {"op": "activation_sigm", "input": ["a"]},
    "h_new_0": {"op": "blend", "input": ["z", "h_prev_0", "g"]},
    "g": {"op": "activation_tanh", "input": ["e"]},
    "h_new_1": {"op": "activation_tanh", "input": ["f"]},
    "f": {"op": "linear", "input": ["h_new_0", "d"]},
}


def branch(**changes):
    torch.manual_seed(0)
    return perturbed(RecurrentBranch(RecurrentConfig(**{**SMALL, **changes}), 3))


def speech(values, mask):
    return Batch({"speech": Stream(values, mask, 50.0)})


@pytest.mark.parametrize("graph", OF_TABLE_4)
@pytest.mark.parametrize(("layers", "hidden", "parameters"), [(1, 128, 362_117), (2, 256, 2_233_093)])
def test_parameters_are_those_of_table_4(graph, layers, hidden, parameters):
    with torch.device("meta"):
        model = models["emotionnas-recurrent"](RecurrentConfig(layers=layers, hidden=hidden, recipe=graph), 4)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize(("layers", "hidden", "parameters"), [(1, 128, 362_500), (2, 256, 2_233_860)])
def test_additive_attention_gives_the_parameter_counts_too(layers, hidden, parameters):
    config = RecurrentConfig(layers=layers, hidden=hidden, attention="additive", fully_connected=1)
    with torch.device("meta"):
        model = RecurrentBranch(config, 4)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_the_defaults_are_the_better_row_of_table_4():
    with torch.device("meta"):
        model = RecurrentBranch(RecurrentConfig(), 4)
    assert sum(p.numel() for p in model.parameters()) == 2_233_093


@pytest.mark.parametrize(
    "changes",
    [
        *({"recipe": name, "layers": 1} for name in CELL_GRAPHS),
        {"recipe": ALL_OPERATIONS},
        {},
        {"masked": True},
        {"masked": True, "frames": "any", "bidirectional": False},
        {"attention": "additive", "fully_connected": 1, "masked": True},
        {"attention": "additive", "bidirectional": False},
        {"input_norm": "standard"},
        {"input_norm": "standard", "masked": True, "stride": 2, "frames": 3},
        {"stride": 3, "frames": "any", "layers": 1},
    ],
    ids=lambda changes: str(changes)[:60],
)
def test_logits_and_all_gradients_equal_the_reference(changes):
    model = branch(**changes)
    config = model.config
    values, mask = utterances([7, 5, 1, 3], 4, noise=2.0, length=8)

    def reference_logits(weights, values):
        return reference.recurrent_logits(
            weights,
            values["speech"],
            mask,
            graph=CELL_GRAPHS[config.recipe] if isinstance(config.recipe, str) else config.recipe,
            layers=config.layers,
            hidden=config.hidden,
            frames=None if config.frames == "any" else config.frames,
            masked=config.masked,
            bidirectional=config.bidirectional,
            additive=config.attention == "additive",
            fully_connected=config.fully_connected,
            stride=config.stride,
        )

    assert_agrees(model, reference_logits, {"speech": (values, mask)})


def torch_converter(convert, layers):
    """Return a function that converts tensors of our layers, by parameter, to those of torch's network."""

    def to_torch(tensors):
        cells = [(number, direction) for number in range(len(layers)) for direction in ("forward", "backward")]
        return {
            f"{name}_l{number}{'_reverse' * (direction == 'backward')}": tensor
            for number, direction in cells
            for name, tensor in convert(
                lambda node, part, n=number, d=direction: tensors[f"{n}.{d}_cell.linears.{node}.{part}"]
            )
        }

    return to_torch


def convert_lstm(part):
    width = part("i", "bias").shape[0]
    weights = torch.cat([part(node, "weight") for node in "jfio"])  # torch's i, f, g, o
    biases = torch.cat([part(node, "bias") for node in "jfio"])
    yield "weight_ih", weights[:, :-width]
    yield "weight_hh", weights[:, -width:]
    yield "bias_ih", biases
    yield "bias_hh", torch.zeros_like(biases)


def convert_gru(part):
    width = part("r", "bias").shape[0]
    gates = torch.cat([part(node, "weight") for node in "rz"])
    biases = torch.cat([part(node, "bias") for node in "rz"])
    yield "weight_ih", torch.cat([gates[:, :-width], part("n_x", "weight")])
    yield "weight_hh", torch.cat([gates[:, -width:], part("n_h", "weight")])
    yield "bias_ih", torch.cat([biases, part("n_x", "bias")])
    yield "bias_hh", torch.cat([torch.zeros_like(biases), part("n_h", "bias")])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize(
    ("graph", "torch_class", "convert"),
    [("lstm", torch.nn.LSTM, convert_lstm), ("gru_reset_after", torch.nn.GRU, convert_gru)],
)
def test_lstm_and_gru_reset_after_equal_torch(graph, torch_class, convert, dtype, tolerance):
    torch.manual_seed(0)
    ours = torch.nn.ModuleList(RecurrentLayer(compile_cell_graph(graph), d, 3, bidirectional=True) for d in (4, 6)).to(
        dtype
    )
    theirs = torch_class(4, 3, num_layers=2, bidirectional=True, batch_first=True).to(dtype)
    to_theirs = torch_converter(convert, ours)
    theirs.load_state_dict(to_theirs(dict(ours.named_parameters())))
    values = torch.randn(3, 9, 4, dtype=dtype)
    mine, others = values.clone().requires_grad_(), values.clone().requires_grad_()
    answer, expected = ours[1](ours[0](mine)), theirs(others)[0]
    torch.testing.assert_close(answer, expected, atol=tolerance, rtol=0)
    projection = torch.randn_like(answer)
    (answer * projection).mean().backward()
    (expected * projection).mean().backward()
    torch.testing.assert_close(mine.grad, others.grad, atol=tolerance, rtol=0)
    gradients = to_theirs({name: parameter.grad for name, parameter in ours.named_parameters()})
    for name, parameter in theirs.named_parameters():
        if not (name.startswith("bias_hh") and graph == "lstm"):  # one of the two biases that are added
            rows = slice(-3 if name.startswith("bias_hh") else 0, None)
            torch.testing.assert_close(gradients[name][rows], parameter.grad[rows], atol=tolerance, rtol=0)


def test_the_benchmarks_lstm_and_gru_differ_from_torch():
    assert CELL_GRAPHS["lstm_tanh_output_gate"]["o_act"]["op"] == "activation_tanh"
    assert CELL_GRAPHS["lstm"]["o_act"]["op"] == "activation_sigm"
    assert CELL_GRAPHS["gru"]["h_tilde"]["input"] == ["x", "rh"]


def test_padding_is_not_computed():
    values, mask = utterances([2, 5, 0, 3], 4, length=7)
    order = Order.of(values, mask, 2)
    assert order.counts == [3, 3, 2, 1, 1]
    assert Order.of(values, None, 1).counts == [4] * 7
    torch.testing.assert_close(order.loop_rows[order.inverse], torch.arange(20))


def test_without_frames_outputs_and_gradients_are_zero():
    values, mask = utterances([0, 0], 4, length=3)
    layer = RecurrentLayer(compile_cell_graph("id1010120"), 4, 3, bidirectional=True).double()
    outputs = layer(values.requires_grad_(), mask)
    outputs.sum().backward()
    assert (outputs == 0).all()
    assert all((p.grad == 0).all() for p in layer.parameters())


@pytest.mark.parametrize("rows", [1, 5])
def test_gradients_do_not_depend_on_the_block_size(rows, monkeypatch):
    layer = branch(recipe=ALL_OPERATIONS, layers=1).layers[0]
    values, mask = utterances([7, 4, 6], 4)
    expected = torch.autograd.grad(layer(values, mask).square().sum(), list(layer.parameters()))
    monkeypatch.setattr(recurrence, "BLOCK", rows)
    gradients = torch.autograd.grad(layer(values, mask).square().sum(), list(layer.parameters()))
    torch.testing.assert_close(gradients, expected, atol=1e-12, rtol=0)


def test_functional_call_uses_the_given_weights():
    model = branch(masked=True, recipe="lstm")
    values, mask = utterances([7, 4], 4)
    others = {name: tensor + 0.1 for name, tensor in model.state_dict().items()}
    answer = torch.func.functional_call(model, others, (speech(values, mask),))
    assert (answer - model(speech(values, mask))).abs().max() > 1e-3
    model.load_state_dict(others)
    torch.testing.assert_close(answer, model(speech(values, mask)), atol=0, rtol=0)


@pytest.mark.parametrize("graph", ["gru", "lstm", "id1010120"])
def test_under_autocast_gradients_have_the_precision_of_the_weights(graph):
    model = branch(recipe=graph, masked=True).float().train()
    values, mask = utterances([7, 4, 5], 4)
    batch = speech(values.float(), mask)
    expected = model(batch)
    with torch.autocast("cpu", torch.bfloat16):
        answer = model(batch)
    torch.testing.assert_close(answer.float(), expected, atol=0.05, rtol=0)
    answer.float().sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.layers.parameters())


@pytest.mark.parametrize("mask", [[1, 1, 0, 1, 1, 1], [0, 1, 1, 1, 1, 1]])
def test_padding_before_or_between_frames_is_refused(mask):
    model, (values, _) = branch(masked=True), utterances([6], 4)
    with pytest.raises(BadConfig, match="expected padding only after the frames"):
        model(speech(values, torch.tensor([mask], dtype=torch.bool)))


def test_a_second_backward_pass_is_refused():
    layer, (values, _) = branch(layers=1).layers[0], utterances([6], 4)
    plain = torch.autograd.grad(layer(values).sum(), list(layer.parameters()))
    differentiable = torch.autograd.grad(layer(values).sum(), list(layer.parameters()), create_graph=True)
    torch.testing.assert_close(differentiable, plain, atol=0, rtol=0)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        sum(gradient.square().sum() for gradient in differentiable).backward()


def test_reversing_an_utterance_swaps_the_directions():
    torch.manual_seed(0)
    layer = branch(layers=1, masked=True).layers[0]
    values, mask = utterances([7, 4], 4)
    forward, backward = layer(values, mask).chunk(2, dim=2)
    layer.forward_cell, layer.backward_cell = layer.backward_cell, layer.forward_cell
    for row, length in enumerate((7, 4)):
        turned = layer(values[row : row + 1, :length].flip(1), None).flip(1)[0]
        torch.testing.assert_close(turned[:, :3], backward[row, :length], atol=1e-12, rtol=0)
        torch.testing.assert_close(turned[:, 3:], forward[row, :length], atol=1e-12, rtol=0)


@pytest.mark.parametrize("filling", [7.0, float("nan"), float("inf")])
@pytest.mark.parametrize("changes", [{"frames": "any"}, {"frames": 9, "attention": "additive", "stride": 2}])
def test_with_masks_padding_changes_nothing(changes, filling):
    model = branch(masked=True, **changes)
    values, mask = utterances([7, 4], 4)
    filled = speech(torch.where(mask.unsqueeze(2), values, filling), mask)
    torch.testing.assert_close(model(filled), model(speech(values, mask)), atol=1e-12, rtol=0)
    torch.testing.assert_close(model(speech(values, mask).pad(30)), model(speech(values, mask)), atol=1e-12, rtol=0)


def test_without_masks_padding_changes_the_logits():
    model = branch(frames="any")
    values, mask = utterances([7, 4], 4)
    assert (model(speech(values, mask)) - model(speech(values, mask).pad(9))).abs().max() > 1e-6


@pytest.mark.parametrize("attention", ["vector", "additive"])
@pytest.mark.parametrize("graph", [*CELL_GRAPHS, ALL_OPERATIONS], ids=lambda graph: str(graph)[:20])
def test_all_parameters_except_inert_ones_get_a_gradient(graph, attention):
    model = branch(recipe=graph, attention=attention, masked=True, fully_connected=1).train()  # no ReLU to be dead
    values, mask = utterances([6, 6, 5], 4)
    F.cross_entropy(model(speech(values, mask)), torch.arange(3)).backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 1e-12}
    assert set(dict(model.named_parameters())) - reached == model.inert_parameters()


def test_idle_nodes_include_a_state_that_feeds_only_itself():
    assert idle_nodes(compile_cell_graph("id1008530")) == {"node_3", "h_new_1"}
    assert all(not idle_nodes(compile_cell_graph(name)) for name in CELL_GRAPHS if name != "id1008530")


def test_initial_weights_are_within_one_over_the_root_of_the_width():
    torch.manual_seed(0)
    cell = GraphCell(compile_cell_graph("gru"), 50, 64)
    for parameter in cell.parameters():
        assert 0.11 < parameter.detach().abs().max() <= 0.125


def test_attention_weights_sum_to_one_without_padding():
    model = branch(masked=True)
    values, mask = utterances([6, 4], 4)
    batch = speech(values, mask)
    explanation = model.explain(batch)
    torch.testing.assert_close(explanation["attention"].sum(dim=1), torch.ones(2).double())
    assert (explanation["attention"][1, 4:] == 0).all()
    torch.testing.assert_close(model.classifier(explanation["embedding"]), model(batch))


@pytest.mark.slow
def test_the_onnx_graph_equals_torch(tmp_path):
    model = branch(recipe=ALL_OPERATIONS, masked=True, layers=1, frames=4, stride=2, input_norm="standard")
    assert_onnx_equals_torch(model, tmp_path / "model.onnx")


def test_settings_accept_a_cell_graph():
    written = {"recipe": ALL_OPERATIONS, "layers": 1, "hidden": 3}
    config = decode(RecurrentConfig, written, "model")
    assert decode(RecurrentConfig, encode(config), "model") == config
    with pytest.raises(BadConfig, match="cell graph: no node h_new_0"):
        decode(RecurrentConfig, {"recipe": {"a": {"op": "linear", "input": ["x"]}}}, "model")


def test_the_small_preset_is_small():
    kind, preset = models.resolve("emotionnas-recurrent-small")
    with torch.device("meta"):
        model = kind(decode(kind.Config, preset, "model"), 4)
    assert sum(p.numel() for p in model.parameters()) < 250_000


@pytest.mark.parametrize("name", CELL_GRAPHS)
def test_compiled_graphs_are_sorted_and_complete(name):
    nodes = compile_cell_graph(name)
    assert {node.name: {"op": node.operation, "input": list(node.inputs)} for node in nodes} == CELL_GRAPHS[name]
    before = {"x", *(f"h_prev_{state}" for state in range(count_states(nodes)))}
    for node in nodes:
        assert set(node.inputs) <= before
        before.add(node.name)
    assert {node.operation for node in compile_cell_graph(ALL_OPERATIONS)} == set(INPUTS)


@pytest.mark.parametrize("graph", [*CELL_GRAPHS, ALL_OPERATIONS], ids=lambda graph: str(graph)[:20])
def test_a_cell_graph_survives_writing_and_reading(graph):
    assert cell_graph_from_json(cell_graph_to_json(graph)) == (CELL_GRAPHS[graph] if isinstance(graph, str) else graph)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "the cell graph is not JSON"),
        ("[]", "the cell graph is a list"),
        ("{}", "cell graph: no node h_new_0"),
        ('{"h_new_0": ["linear", "x"]}', "cell graph, h_new_0: expected op, an operation, and input, a list of names"),
        ('{"h_new_0": {"op": "linear", "input": [["x"]]}}', "cell graph, h_new_0: expected op, an operation"),
        ('{"h_new_0": {"op": ["linear"], "input": ["x"]}}', "cell graph, h_new_0: expected op, an operation"),
    ],
)
def test_invalid_json_graphs_are_refused(text, message):
    with pytest.raises(BadConfig, match=message):
        cell_graph_from_json(text)


def changed(**nodes):
    return {
        **CELL_GRAPHS["id1010120"],
        **{name: None if node is None else {"op": node[0], "input": list(node[1:])} for name, node in nodes.items()},
    }


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ("gruu", "unknown cell graph 'gruu'; did you mean 'gru'"),
        (
            changed(node_3=("activation_tan", "node_2")),
            "node_3: operation 'activation_tan'; did you mean 'activation_tanh'",
        ),
        (changed(node_3=("activation_tanh", "node_22")), "node_3: input 'node_22'; did you mean 'node_2'"),
        (changed(node_3=("activation_tanh", "h_prev_2")), "node_3: input 'h_prev_2'"),
        (
            changed(node_3=("activation_tanh", "node_2", "node_13")),
            "the number of inputs of activation_tanh is 2; expected 1",
        ),
        (
            changed(node_3=("elementwise_sum", "node_2")),
            "the number of inputs of elementwise_sum is 1; expected 2 or more",
        ),
        (changed(node_3=("blend", "node_2", "node_2")), "the number of inputs of blend is 2; expected 3"),
        (
            changed(node_3=("elementwise_sum", "node_2", "x")),
            "node_3: elementwise_sum has the input x; a frame has another width",
        ),
        (
            changed(node_3=("activation_tanh", "node_13")),
            r"a cycle, node_\d+ -> ",
        ),
        (changed(extra=("activation_tanh", "node_2")), "cell graph: extra unused"),
        (changed(h_new_more=("activation_tanh", "node_2")), "cell graph: h_new_more unused"),
        (changed(node_2=("linear", "h_prev_0", "h_prev_1")), "cell graph: x unused"),
        (changed(node_11=("linear", "node_3"), node_2=("linear", "h_prev_0", "x")), "cell graph: h_prev_1 unused"),
        (
            changed(node_2=("linear", "x", "x", "h_prev_0")),
            "node_2: linear has the inputs x, x, h_prev_0; expected each input once",
        ),
        (changed(x=("activation_tanh", "node_2")), "x is an input of the cell"),
        (changed(h_new_3=("activation_tanh", "node_2")), "cell graph: no node h_new_2; new states are numbered from 0"),
        (changed(forward=("activation_tanh", "node_2")), "a node named 'forward'"),
        (changed(node_3=None), "cell graph, node_3: expected op, an operation, and input, a list of names"),
        ({}, "cell graph: no node h_new_0"),
    ],
)
def test_invalid_cell_graphs_are_refused(graph, message):
    with pytest.raises(BadConfig, match=message):
        RecurrentConfig(recipe=graph)


def test_invalid_settings_are_refused():
    with pytest.raises(BadConfig, match="frames = 0: expected 1 or more"):
        RecurrentConfig(frames=0)
