"""EmotionNAS's recurrent branch: recipes are checked and followed, layers and attention are as they are written out."""

import pytest
import torch
import torch.nn.functional as F

from affekt.batch import Batch, Stream
from affekt.config import decode, encode
from affekt.errors import BadConfig
from affekt.models import models
from affekt.models.emotionnas.recipes import INPUTS, RECIPES, compiled, idle, states
from affekt.models.emotionnas.recurrent import RecipeCell, RecurrentBranch, RecurrentConfig
from tests.models.emotionnas import assert_agrees, assert_onnx_equals_torch, perturbed, utterances
from tests.models.references import emotionnas_recurrent as reference

SMALL = {"layers": 2, "hidden": 3, "frames": 6, "input_dim": 4}
OF_TABLE_4 = [name for name in RECIPES if name.startswith("id")]
# An LSTM as everybody else writes it, and every operation of the language.
LSTM = {**RECIPES["lstm_tanh_output_gate"], "o_act": {"op": "activation_sigm", "input": ["o"]}}
EVERYTHING = {
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


@pytest.mark.parametrize("recipe", OF_TABLE_4)
@pytest.mark.parametrize(("layers", "hidden", "parameters"), [(1, 128, 362_117), (2, 256, 2_233_093)])
def test_parameters_are_those_of_table_4(recipe, layers, hidden, parameters):
    with torch.device("meta"):
        model = models["emotionnas-recurrent"](RecurrentConfig(layers=layers, hidden=hidden, recipe=recipe), 4)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize(("layers", "hidden", "parameters"), [(1, 128, 362_500), (2, 256, 2_233_860)])
def test_the_other_form_of_attention_counts_as_well(layers, hidden, parameters):
    config = RecurrentConfig(layers=layers, hidden=hidden, attention="additive", fully_connected=1)
    with torch.device("meta"):
        model = RecurrentBranch(config, 4)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_the_default_is_the_better_row():
    with torch.device("meta"):
        model = RecurrentBranch(RecurrentConfig(), 4)
    assert sum(p.numel() for p in model.parameters()) == 2_233_093


@pytest.mark.parametrize(
    "changes",
    [
        *({"recipe": name, "layers": 1} for name in RECIPES),
        {"recipe": EVERYTHING},
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
def test_logits_and_all_gradients_are_as_written_out(changes):
    model = branch(**changes)
    config = model.config
    values, mask = utterances([7, 5, 1, 3], 4, noise=2.0, length=8)

    def written_out(weights, given):
        return reference.logits(
            weights,
            given["speech"],
            mask,
            recipe=RECIPES[config.recipe] if isinstance(config.recipe, str) else config.recipe,
            layers=config.layers,
            hidden=config.hidden,
            frames=None if config.frames == "any" else config.frames,
            masked=config.masked,
            bidirectional=config.bidirectional,
            additive=config.attention == "additive",
            fully_connected=config.fully_connected,
            stride=config.stride,
        )

    assert_agrees(model, written_out, {"speech": (values, mask)})


def test_an_lstm_of_ours_is_torchs():
    torch.manual_seed(0)
    cell, theirs = RecipeCell(compiled(LSTM), 4, 3).double(), torch.nn.LSTM(4, 3, batch_first=True).double()
    with torch.no_grad():
        for rows, node in zip((slice(n, n + 3) for n in (0, 3, 6, 9)), "jfio", strict=True):  # torch's i, f, g, o
            linear = cell.linears[node]
            theirs.weight_ih_l0[rows], theirs.weight_hh_l0[rows] = linear.weight[:, :4], linear.weight[:, 4:]
            theirs.bias_ih_l0[rows], theirs.bias_hh_l0[rows] = linear.bias, 0
    values, _ = utterances([7, 7], 4)
    torch.testing.assert_close(cell(values), theirs(values)[0], atol=1e-12, rtol=0)


def test_the_benchmarks_lstm_is_not_torchs():
    assert RECIPES["lstm_tanh_output_gate"]["o_act"]["op"] == "activation_tanh"
    with pytest.raises(BadConfig, match="there is no recipe 'lstm'"):
        compiled("lstm")


def test_an_utterance_backwards_swaps_the_two_directions():
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
def test_with_masks_padding_may_be_anything(changes, filling):
    model = branch(masked=True, **changes)
    values, mask = utterances([7, 4], 4)
    filled = speech(torch.where(mask.unsqueeze(2), values, filling), mask)
    torch.testing.assert_close(model(filled), model(speech(values, mask)), atol=1e-12, rtol=0)
    torch.testing.assert_close(model(speech(values, mask).padded(30)), model(speech(values, mask)), atol=1e-12, rtol=0)


def test_without_masks_padding_counts():
    model = branch(frames="any")
    values, mask = utterances([7, 4], 4)
    assert (model(speech(values, mask)) - model(speech(values, mask).padded(9))).abs().max() > 1e-6


@pytest.mark.parametrize("attention", ["vector", "additive"])
@pytest.mark.parametrize("recipe", [*RECIPES, EVERYTHING], ids=lambda recipe: str(recipe)[:20])
def test_in_training_every_parameter_gets_a_gradient_but_those_that_provably_cannot(recipe, attention):
    model = branch(recipe=recipe, attention=attention, masked=True).train()
    values, mask = utterances([6, 6, 5], 4)
    F.cross_entropy(model(speech(values, mask)), torch.arange(3)).backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 1e-12}
    assert set(dict(model.named_parameters())) - reached == model.inert_parameters()


def test_a_state_that_feeds_itself_alone_is_known():
    assert idle(compiled("id1008530")) == {"node_3", "h_new_1"}
    assert all(not idle(compiled(name)) for name in RECIPES if name != "id1008530")


def test_weights_begin_within_one_over_the_root_of_the_width():
    torch.manual_seed(0)
    cell = RecipeCell(compiled("gru"), 50, 64)
    for parameter in cell.parameters():
        assert 0.11 < parameter.detach().abs().max() <= 0.125


def test_its_attention_is_shared_among_real_frames():
    model = branch(masked=True)
    values, mask = utterances([6, 4], 4)
    batch = speech(values, mask)
    explanation = model.explain(batch)
    torch.testing.assert_close(explanation["attention"].sum(dim=1), torch.ones(2).double())
    assert (explanation["attention"][1, 4:] == 0).all()
    torch.testing.assert_close(model.classifier(explanation["embedding"]), model(batch))


def test_the_onnx_graph_equals_torch_at_its_own_length(tmp_path):
    model = branch(masked=True, layers=1, frames=4, stride=2, input_norm="standard")
    assert_onnx_equals_torch(model, tmp_path / "model.onnx")


def test_a_recipe_may_be_written_into_the_settings():
    written = {"recipe": EVERYTHING, "layers": 1, "hidden": 3}
    config = decode(RecurrentConfig, written, "model")
    assert decode(RecurrentConfig, encode(config), "model") == config
    with pytest.raises(BadConfig, match="recipe: no node h_new_0"):
        decode(RecurrentConfig, {"recipe": {"a": {"op": "linear", "input": ["x"]}}}, "model")


def test_the_small_preset_is_small():
    kind, preset = models.resolve("emotionnas-recurrent-small")
    with torch.device("meta"):
        model = kind(decode(kind.Config, preset, "model"), 4)
    assert sum(p.numel() for p in model.parameters()) < 250_000


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_ordered_and_all_their_nodes_kept(name):
    nodes = compiled(name)
    assert {node.name: {"op": node.operation, "input": list(node.inputs)} for node in nodes} == RECIPES[name]
    before = {"x", *(f"h_prev_{state}" for state in range(states(nodes)))}
    for node in nodes:
        assert set(node.inputs) <= before
        before.add(node.name)
    assert {node.operation for node in compiled(EVERYTHING)} == set(INPUTS)


def changed(**nodes):
    return {
        **RECIPES["id1010120"],
        **{name: None if node is None else {"op": node[0], "input": list(node[1:])} for name, node in nodes.items()},
    }


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("gruu", "there is no recipe 'gruu'; did you mean 'gru'"),
        (
            changed(node_3=("activation_tan", "node_2")),
            "node_3: operation 'activation_tan'; did you mean 'activation_tanh'",
        ),
        (changed(node_3=("activation_tanh", "node_22")), "node_3: input 'node_22'; did you mean 'node_2'"),
        (changed(node_3=("activation_tanh", "h_prev_2")), "node_3: input 'h_prev_2'"),
        (changed(node_3=("activation_tanh", "node_2", "node_13")), "activation_tanh of 2 inputs; expected 1"),
        (changed(node_3=("elementwise_sum", "node_2")), "elementwise_sum of 1 inputs; expected 2 or more"),
        (changed(node_3=("blend", "node_2", "node_2")), "blend of 2 inputs; expected 3"),
        (
            changed(node_3=("elementwise_sum", "node_2", "x")),
            "node_3: elementwise_sum of x; a frame is of another width",
        ),
        (
            changed(node_3=("activation_tanh", "node_13")),
            r"a circle, node_\d+ -> .*a node may not take what comes of it",
        ),
        (changed(extra=("activation_tanh", "node_2")), "recipe: extra unused: no new state comes of it"),
        (changed(node_2=("linear", "h_prev_0", "h_prev_1")), "recipe: x unused"),
        (changed(node_11=("linear", "node_3"), node_2=("linear", "h_prev_0", "x")), "recipe: h_prev_1 unused"),
        (
            changed(node_2=("linear", "x", "x", "h_prev_0")),
            "node_2: linear of x, x, h_prev_0; expected each input once",
        ),
        (changed(x=("activation_tanh", "node_2")), "x is given to the cell, and cannot be a node of it"),
        (changed(h_new_3=("activation_tanh", "node_2")), "recipe: no node h_new_2; new states are numbered from 0"),
        (changed(forward=("activation_tanh", "node_2")), "a node named 'forward'"),
        (changed(node_3=None), "recipe, node_3: expected op, an operation, and input, a list of names"),
        ({}, "recipe: no node h_new_0"),
    ],
)
def test_recipes_that_make_no_cell_are_refused(recipe, message):
    with pytest.raises(BadConfig, match=message):
        RecurrentConfig(recipe=recipe)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(BadConfig, match="frames = 0: expected 1 or more"):
        RecurrentConfig(frames=0)
