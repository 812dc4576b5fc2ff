"""Genotypes: derivation from architecture weights, random genotypes, JSON and settings."""

from collections import Counter

import numpy as np
import pytest
import torch

from affekt.batch import Batch, Stream
from affekt.config import decode, encode, read_toml, to_toml
from affekt.errors import BadConfig
from affekt.models.emotionnas.genotypes import GENOTYPES, Genotype, discretize, get_genotype, random_genotype
from affekt.models.emotionnas.operations import OPERATIONS
from affekt.models.emotionnas.spectrogram import SpectrogramBranch, SpectrogramBranchConfig


def alphas(nodes, seed):
    generator = torch.Generator().manual_seed(seed)
    edges = sum(2 + node for node in range(nodes))
    return {kind: torch.randn(edges, len(OPERATIONS), generator=generator) for kind in ("normal", "reduce")}


def strongest_genes(alpha, nodes):
    """Return the two edges of every node whose best operations have the largest weights, by trying all pairs of edges."""
    genes, row = [], 0
    for node in range(nodes):
        strength, best = [], []
        for _ in range(2 + node):
            exponentials = [float(a.double().exp()) for a in alpha[row]]
            weights = [e / sum(exponentials) for e in exponentials]
            index = max(range(1, len(OPERATIONS)), key=lambda number, weights=weights: weights[number])
            strength.append(weights[index])
            best.append(OPERATIONS[index])
            row += 1
        pairs = [(a, b) for a in range(2 + node) for b in range(2 + node) if strength[a] > strength[b]]
        first, second = max(pairs, key=lambda pair: strength[pair[0]] + strength[pair[1]])
        genes += [(best[first], first), (best[second], second)]
    return tuple(genes)


@pytest.mark.parametrize("nodes", [1, 2, 4])
@pytest.mark.parametrize("seed", range(5))
def test_the_two_strongest_edges_of_each_node_keep_their_strongest_operation(nodes, seed):
    weights = alphas(nodes, seed)
    genotype = discretize(weights)
    assert genotype == Genotype(strongest_genes(weights["normal"], nodes), strongest_genes(weights["reduce"], nodes))


@pytest.mark.parametrize("name", GENOTYPES)
def test_discretize_returns_a_planted_genotype(name):
    planted = get_genotype(name)
    weights = {kind: torch.zeros(14, 8) for kind in ("normal", "reduce")}
    for kind, alpha in weights.items():
        alpha[:, 0] = 9.0  # no connection is never kept, however strong
        start = 0
        for node in range(4):
            for rank, (operation, source) in enumerate(getattr(planted, kind)[2 * node : 2 * node + 2]):
                alpha[start + source, 0] = 0.0
                alpha[start + source, OPERATIONS.index(operation)] = 3.0 - rank
            start += 2 + node
    assert discretize(weights) == planted


def test_ties_go_to_the_earlier_source_and_operation():
    equal = torch.zeros(5, 8)
    genes = (("max_pool_3x3", 0), ("max_pool_3x3", 1)) * 2
    assert discretize({"normal": equal, "reduce": equal}) == Genotype(genes, genes)


def test_edges_are_ranked_by_softmax_weights_not_by_alphas():
    alpha = torch.zeros(5, 8)
    alpha[2], alpha[2, 4] = 5.0, 5.5  # large, but hardly larger than its own
    alpha[3, 5], alpha[4, 6] = 2.0, 3.0
    assert discretize({"normal": alpha, "reduce": alpha}).normal[2:] == (("dil_conv_3x3", 2), ("sep_conv_5x5", 1))


def test_a_network_returns_its_genotype():
    search = SpectrogramBranch(SpectrogramBranchConfig(channels=2), 3)
    assert search.genotype() == discretize(search.alphas())
    derived = SpectrogramBranch(SpectrogramBranchConfig(channels=2, genotype=search.genotype()), 3)
    assert derived.genotype() == search.genotype()
    assert derived.alphas() == {}


@pytest.mark.parametrize("name", GENOTYPES)
def test_a_genotype_survives_writing_and_reading(name, tmp_path):
    genotype = get_genotype(name)
    assert Genotype.from_json(genotype.to_json()) == genotype
    config = SpectrogramBranchConfig(genotype=genotype)
    path = tmp_path / "config.toml"
    path.write_text(to_toml(encode(config)), encoding="utf-8")
    assert decode(SpectrogramBranchConfig, read_toml(path), "model") == config


def test_settings_accept_a_name_a_genotype_or_a_json_object():
    written = {
        "normal": [["skip_connect", 0], ["max_pool_3x3", 1]],
        "reduce": [["skip_connect", 1], ["max_pool_3x3", 1]],
    }
    by_hand = Genotype((("skip_connect", 0), ("max_pool_3x3", 1)), (("skip_connect", 1), ("max_pool_3x3", 1)))
    assert get_genotype(written) == get_genotype(by_hand) == by_hand
    assert decode(SpectrogramBranchConfig, {"nodes": 1, "genotype": written}, "model").genotype == by_hand
    assert decode(SpectrogramBranchConfig, {"genotype": "darts-v2"}, "model").genotype == "darts-v2"
    with pytest.raises(BadConfig, match="operation 'skip'"):
        decode(SpectrogramBranchConfig, {"nodes": 1, "genotype": {**written, "normal": [["skip", 0]] * 2}}, "model")


PAIR = [["skip_connect", 0], ["skip_connect", 1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "the genotype is not JSON"),
        ("[1]", "the genotype is list: expected an object with the keys normal and reduce"),
        ('{"normal": []}', r"the genotype is \['normal'\]: expected an object with the keys normal and reduce"),
        ('{"normal": 3, "reduce": 3}', r"genotype, normal: expected a list of \[operation, source\] pairs"),
        ('{"normal": [["skip_connect"]], "reduce": []}', r"normal: expected a list of \[operation, source\] pairs"),
        ('{"normal": [], "reduce": []}', "normal: 0 pairs; expected two for each intermediate node"),
        ('{"normal": [["none", 0], ["none", 1]], "reduce": []}', "pair 1: operation 'none'"),
        (
            '{"normal": [["sep_conv_3", 0], ["none", 1]], "reduce": []}',
            "pair 1: operation 'sep_conv_3'; did you mean 'sep_conv_3x3'",
        ),
        (
            '{"normal": [["skip_connect", 0], ["skip_connect", 2]], "reduce": []}',
            "pair 2: source 2; node 2 accepts 0 to 1",
        ),
        ('{"normal": [["skip_connect", 0], ["skip_connect", true]], "reduce": []}', "pair 2: source True"),
    ],
)
def test_invalid_genotypes_are_refused(text, message):
    with pytest.raises(BadConfig, match=message):
        Genotype.from_json(text)


def test_both_kinds_of_cells_must_have_equally_many_nodes():
    with pytest.raises(BadConfig, match="2 nodes in normal and 1 in reduce: expected the same number"):
        Genotype.from_dict({"normal": PAIR * 2, "reduce": PAIR})


@pytest.mark.parametrize("nodes", [1, 2, 4])
def test_a_random_genotype_has_two_different_sources_for_each_node(nodes):
    generator = np.random.default_rng(0)
    for _ in range(100):
        genotype = random_genotype(generator, nodes)
        assert genotype.nodes == nodes
        for genes in (genotype.normal, genotype.reduce):
            assert all(genes[i][1] != genes[i + 1][1] for i in range(0, len(genes), 2))
        assert Genotype.from_json(genotype.to_json()) == genotype


def test_equal_generators_give_equal_genotypes():
    first, again = ([random_genotype(np.random.default_rng(seed)) for seed in range(10)] for _ in range(2))
    assert first == again
    assert len(set(first)) == 10


def test_operations_and_sources_are_equally_likely():
    generator = np.random.default_rng(0)
    genotypes = [random_genotype(generator) for _ in range(1000)]
    genes = [gene for genotype in genotypes for kind in ("normal", "reduce") for gene in getattr(genotype, kind)]
    operations = Counter(operation for operation, _ in genes)
    assert set(operations) == set(OPERATIONS[1:])
    assert all(abs(count - len(genes) / 7) < 4 * (len(genes) / 7) ** 0.5 for count in operations.values())
    last = Counter(source for genotype in genotypes for _, source in genotype.normal[-2:])
    assert set(last) == set(range(5))
    assert all(abs(count - 400) < 4 * 400**0.5 for count in last.values())


def test_a_network_can_be_built_from_a_random_genotype():
    genotype = random_genotype(np.random.default_rng(3), 2)
    model = SpectrogramBranch(SpectrogramBranchConfig(channels=2, nodes=2, frames=8, input_dim=8, genotype=genotype), 3)
    assert model(Batch({"spectrogram": Stream(torch.randn(2, 8, 8))})).shape == (2, 3)


def test_a_random_genotype_needs_a_node():
    with pytest.raises(BadConfig, match="nodes = 0: expected 1 or more"):
        random_genotype(np.random.default_rng(0), 0)
