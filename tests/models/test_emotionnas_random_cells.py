"""Random recurrent cells: validity, the benchmark's probabilities, and fingerprints."""

from collections import Counter

import numpy as np
import pytest
import torch

from affekt.errors import BadConfig
from affekt.models.emotionnas.cell_graphs import (
    CELL_GRAPHS,
    cell_graph_from_json,
    cell_graph_to_json,
    compile_cell_graph,
    count_states,
)
from affekt.models.emotionnas.random_cells import RandomCellConfig, _draft, fingerprint, random_cell_graph
from affekt.models.emotionnas.recurrent import RecurrentBranch, RecurrentConfig
from tests.models.emotionnas import assert_agrees, perturbed, utterances
from tests.models.references import emotionnas_recurrent as reference

DRAWS = 500


@pytest.fixture(scope="module")
def graphs():
    generator = np.random.default_rng(0)
    return [random_cell_graph(generator) for _ in range(DRAWS)]


@pytest.fixture(scope="module")
def drafts():
    generator = np.random.default_rng(1)
    return [_draft(generator, RandomCellConfig()) for _ in range(2000)]


@pytest.mark.slow
def test_random_cells_have_two_states_and_use_all_inputs(graphs):
    for graph in graphs:
        nodes = compile_cell_graph(graph)
        assert count_states(nodes) == 2
        assert 3 <= len(nodes) <= 10  # nine, and possibly one more activation
        taken = {name for node in nodes for name in node.inputs}
        assert {"x", "h_prev_0", "h_prev_1"} <= taken
        for node in nodes:
            assert len(set(node.inputs)) == len(node.inputs)
            if node.name.startswith("h_new_"):
                assert not {"h_prev_0", "h_prev_1"} & set(node.inputs)
            if node.operation == "linear":
                assert len(node.inputs) in (2, 3)
                assert all(_kind(graph, name) in ("input", "activation") for name in node.inputs)
            else:
                assert "x" not in node.inputs


def _kind(graph, name):
    return graph[name]["op"].split("_")[0] if name in graph else "input"


def test_equal_generators_give_equal_cells():
    first, again = ([random_cell_graph(np.random.default_rng(seed)) for seed in range(20)] for _ in range(2))
    assert first == again
    assert len({fingerprint(graph) for graph in first}) > 15


def assert_proportional(counts, weights, nodes):
    """Assert that counts are proportional to their weights, within four standard deviations."""
    for name, weight in weights.items():
        fraction = weight / sum(weights.values())
        assert abs(counts[name] - nodes * fraction) < 4 * (nodes * fraction * (1 - fraction)) ** 0.5, name
    assert sum(counts[name] for name in weights) == nodes


@pytest.mark.slow
def test_drafts_have_the_published_probabilities(drafts):
    later = Counter(node["op"] for draft in drafts for name, node in list(draft.items())[2:7])
    activations = {name: later[name] for name in later if name.startswith("activation_")}
    assert_proportional(activations, RandomCellConfig().activations, sum(activations.values()))
    # The second draw: at the first there are two states alone, too few for a blend, which is drawn again.
    second = Counter()
    for draft in drafts:
        operations = [node["op"] for node in draft.values() if not node["op"].startswith("activation_")]
        second[operations[1]] += 1
    assert_proportional(second, RandomCellConfig().operations, len(drafts))
    inputs = Counter(len(node["input"]) for draft in drafts for node in draft.values() if node["op"] == "linear")
    assert_proportional(inputs, RandomCellConfig().linear_inputs, sum(inputs.values()))


@pytest.mark.slow
def test_every_linear_node_is_followed_by_its_activation(drafts):
    for draft in drafts:
        for number in range(len(draft)):
            if draft[f"node_{number}"]["op"] == "linear":
                after = draft[f"node_{number + 1}"]
                assert after["op"].startswith("activation_")
                assert after["input"] == [f"node_{number}"]
        assert len(draft) in (9, 10)


@pytest.mark.slow
def test_new_states_are_chosen_among_all_nodes(graphs):
    operations = Counter(graph["h_new_0"]["op"] for graph in graphs)
    assert len(operations) == 7
    outputs = Counter(graph["h_new_1"]["op"] for graph in graphs)
    assert all(abs(operations[name] - outputs[name]) < 4 * DRAWS**0.5 for name in operations)


@pytest.mark.parametrize("seed", range(12))
def test_random_cells_equal_the_reference(seed):
    graph = random_cell_graph(np.random.default_rng(seed))
    torch.manual_seed(seed)
    config = RecurrentConfig(
        layers=1, hidden=3, frames="any", input_dim=4, recipe=graph, masked=True, fully_connected=1
    )
    values, mask = utterances([4, 2, 3], 4)

    def reference_logits(weights, values):
        return reference.recurrent_logits(
            weights,
            values["speech"],
            mask,
            graph=graph,
            layers=1,
            hidden=3,
            frames=None,
            masked=True,
            fully_connected=1,
        )

    assert_agrees(perturbed(RecurrentBranch(config, 3)), reference_logits, {"speech": (values, mask)})


def test_random_cells_survive_writing_and_reading(graphs):
    for graph in graphs[:50]:
        assert cell_graph_from_json(cell_graph_to_json(graph)) == graph


def renamed_and_reordered(graph, generator):
    """Return the graph with other names of inner nodes, and with entries and interchangeable inputs in another order."""
    inner = [name for name in graph if not name.startswith("h_new_")]
    names = dict(zip(inner, [f"n{number}" for number in generator.permutation(len(inner))], strict=True))
    entries = []
    for name, node in graph.items():
        inputs = [names.get(source, source) for source in node["input"]]
        if node["op"] != "blend":
            inputs = generator.permutation(inputs).tolist()
        entries.append((names.get(name, name), {"op": node["op"], "input": inputs}))
    return dict(entries[index] for index in generator.permutation(len(entries)))


def test_equivalent_graphs_have_equal_fingerprints(graphs):
    generator = np.random.default_rng(2)
    for graph in [*graphs[:100], *CELL_GRAPHS.values()]:
        assert fingerprint(renamed_and_reordered(graph, generator)) == fingerprint(graph)


def test_the_fingerprint_is_stable():
    assert fingerprint("id1010120") == fingerprint(CELL_GRAPHS["id1010120"]) == "6bcb3e73"


def test_different_cells_have_different_fingerprints(graphs):
    names = {name: fingerprint(name) for name in CELL_GRAPHS}
    assert len(set(names.values())) == len(CELL_GRAPHS)
    assert len({fingerprint(graph) for graph in graphs}) > 0.9 * DRAWS
    changed = 0
    for graph in graphs[:100]:
        for name, node in graph.items():
            if node["op"] == "blend":
                z, a, b = node["input"]
                for other in ([a, z, b], [z, b, a]):
                    changed += 1
                    assert fingerprint({**graph, name: {"op": "blend", "input": other}}) != fingerprint(graph)
            if node["op"] == "activation_tanh":
                changed += 1
                assert fingerprint({**graph, name: {**node, "op": "activation_sigm"}}) != fingerprint(graph)
    assert changed > 50


def test_exchanged_states_change_the_fingerprint():
    swap = {"h_new_0": "h_new_1", "h_new_1": "h_new_0"}
    graph = {swap.get(name, name): node for name, node in CELL_GRAPHS["id1010120"].items()}
    assert fingerprint(graph) != fingerprint("id1010120")


def test_two_equal_nodes_differ_from_one_node():
    apart = {
        "a": {"op": "linear", "input": ["x", "h_prev_0"]},
        "b": {"op": "linear", "input": ["x", "h_prev_0"]},
        "h_new_0": {"op": "elementwise_prod", "input": ["a", "b"]},
    }
    once = {"a": apart["a"], "h_new_0": {"op": "elementwise_prod", "input": ["a", "a"]}}
    assert fingerprint(apart) != fingerprint(once)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"states": 0}, "states = 0, nodes = 7: expected 1 or more states, 0 or more nodes"),
        ({"operations": {"linear": 1.0, "sum": 1.0}}, "operations: unknown 'sum'"),
        ({"activations": {"activation_tanh": -1.0}}, "activations: activation_tanh has weight -1.0"),
        ({"operations": {"linear": 0.0}}, "operations: all weights are 0"),
        ({"linear_inputs": {0: 1.0}}, r"linear_inputs has the numbers \[0\]: expected numbers of inputs, 1 or more"),
    ],
)
def test_invalid_settings_are_refused(settings, message):
    with pytest.raises(BadConfig, match=message):
        RandomCellConfig(**settings)


@pytest.mark.slow
def test_settings_that_give_no_valid_cell_are_refused():
    with pytest.raises(BadConfig, match=r"none of 10000 drafts with"):
        random_cell_graph(np.random.default_rng(0), RandomCellConfig(nodes=0, operations={"elementwise_sum": 1.0}))


def test_random_cells_follow_the_settings():
    generator = np.random.default_rng(0)
    config = RandomCellConfig(states=1, nodes=4, operations={"linear": 1.0}, activations={"activation_tanh": 1.0})
    for _ in range(20):
        graph = random_cell_graph(generator, config)
        assert count_states(compile_cell_graph(graph)) == 1
        assert {node["op"] for node in graph.values()} <= {"linear", "activation_tanh"}
