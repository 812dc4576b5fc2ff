"""Genotypes: the operations that a searched cell keeps (EmotionNAS, section 2.1; DARTS, Liu et al., ICLR 2019, section 2.4).

A cell has two inputs, 0 and 1, and intermediate nodes, 2 and up. A genotype lists, for the normal and for the reduction
cells, two (operation, source) pairs for each intermediate node in turn. As JSON:

    {"normal": [["sep_conv_3x3", 0], ["skip_connect", 1], ...], "reduce": [["max_pool_3x3", 0], ...]}
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from affekt.errors import BadConfig
from affekt.models.emotionnas.operations import OPERATIONS
from affekt.registry import did_you_mean

Genes = tuple[tuple[str, int], ...]
KINDS = ("normal", "reduce")
"""The kinds of cells."""


@dataclass(frozen=True)
class Genotype:
    """The operations of both kinds of cells: two (operation, source) pairs per intermediate node.

    Raises `BadConfig` if a pair is invalid.
    """

    normal: Genes
    reduce: Genes

    def __post_init__(self) -> None:
        for kind in KINDS:
            _check_genes(kind, getattr(self, kind))
        if len(self.normal) != len(self.reduce):
            raise BadConfig(
                f"the genotype has {len(self.normal) // 2} nodes in normal and {len(self.reduce) // 2} in reduce: "
                "expected the same number in both kinds of cells"
            )

    @property
    def nodes(self) -> int:
        """Number of intermediate nodes of a cell."""
        return len(self.normal) // 2

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Genotype:
        """Read a genotype from JSON. Raises `BadConfig` if the text is not JSON or not a genotype."""
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise BadConfig(f"the genotype is not JSON: {error}") from error
        return cls.from_dict(data)

    @classmethod
    def from_dict(cls, data: Any) -> Genotype:
        if not isinstance(data, Mapping) or set(data) != set(KINDS):
            content = sorted(map(str, data)) if isinstance(data, Mapping) else type(data).__name__
            raise BadConfig(f"the genotype is {content}: expected an object with the keys normal and reduce")
        return cls(**{kind: _genes(kind, data[kind]) for kind in KINDS})


def _genes(kind: str, pairs: Any) -> Genes:
    if not isinstance(pairs, list | tuple) or not all(isinstance(p, list | tuple) and len(p) == 2 for p in pairs):
        raise BadConfig(f"genotype, {kind}: expected a list of [operation, source] pairs")
    return tuple((name, source) for name, source in pairs)


def _check_genes(kind: str, genes: Genes) -> None:
    if not genes or len(genes) % 2:
        raise BadConfig(f"genotype, {kind}: {len(genes)} pairs; expected two for each intermediate node")
    for index, (name, source) in enumerate(genes):
        if name not in OPERATIONS[1:]:
            raise BadConfig(
                f"genotype, {kind}, pair {index + 1}: operation {name!r}{did_you_mean(str(name), OPERATIONS[1:])} "
                f"(known: {', '.join(OPERATIONS[1:])})"
            )
        if isinstance(source, bool) or not isinstance(source, int) or not 0 <= source < 2 + index // 2:
            raise BadConfig(
                f"genotype, {kind}, pair {index + 1}: source {source!r}; node {2 + index // 2} accepts 0 to {1 + index // 2}"
            )


# The cells that DARTS found on CIFAR-10 (its Figures 4 and 5), with the first- and the second-order gradient. The cells of
# our searches are compared with them.
GENOTYPES: dict[str, Genotype] = {
    "darts-v1": Genotype(
        normal=(
            *(("sep_conv_3x3", 1), ("sep_conv_3x3", 0)),
            *(("skip_connect", 0), ("sep_conv_3x3", 1)),
            *(("skip_connect", 0), ("sep_conv_3x3", 1)),
            *(("sep_conv_3x3", 0), ("skip_connect", 2)),
        ),
        reduce=(
            *(("max_pool_3x3", 0), ("max_pool_3x3", 1)),
            *(("skip_connect", 2), ("max_pool_3x3", 0)),
            *(("max_pool_3x3", 0), ("skip_connect", 2)),
            *(("skip_connect", 2), ("avg_pool_3x3", 0)),
        ),
    ),
    "darts-v2": Genotype(
        normal=(
            *(("sep_conv_3x3", 0), ("sep_conv_3x3", 1)),
            *(("sep_conv_3x3", 0), ("sep_conv_3x3", 1)),
            *(("sep_conv_3x3", 1), ("skip_connect", 0)),
            *(("skip_connect", 0), ("dil_conv_3x3", 2)),
        ),
        reduce=(
            *(("max_pool_3x3", 0), ("max_pool_3x3", 1)),
            *(("skip_connect", 2), ("max_pool_3x3", 1)),
            *(("max_pool_3x3", 0), ("skip_connect", 2)),
            *(("skip_connect", 2), ("max_pool_3x3", 1)),
        ),
    ),
}


def get_genotype(genotype: str | Genotype | Mapping[str, Any]) -> Genotype:
    """Return a genotype, given itself, its name in `GENOTYPES`, or its JSON object. Raises `BadConfig`."""
    if isinstance(genotype, Genotype):
        return genotype
    if isinstance(genotype, Mapping):
        return Genotype.from_dict(genotype)
    if genotype not in GENOTYPES:
        raise BadConfig(
            f"unknown genotype {genotype!r}{did_you_mean(genotype, GENOTYPES)} (known: {', '.join(GENOTYPES)})"
        )
    return GENOTYPES[genotype]


def random_genotype(generator: np.random.Generator, nodes: int = 4) -> Genotype:
    """Return a random genotype, for random search, the baseline of an architecture search.

    Each node takes two different sources and, from each, any operation except "none", all with equal probability. A
    generator in the same state gives the same genotype.

    Raises:
        BadConfig: The number of nodes is too small.
    """
    if nodes < 1:
        raise BadConfig(f"nodes = {nodes}: expected 1 or more")
    return Genotype(**{kind: _random_genes(generator, nodes) for kind in KINDS})


def _random_genes(generator: np.random.Generator, nodes: int) -> Genes:
    genes: list[tuple[str, int]] = []
    for node in range(nodes):
        sources = generator.choice(2 + node, 2, replace=False).tolist()
        operations = generator.choice(OPERATIONS[1:], 2).tolist()
        genes += zip(operations, sources, strict=True)
    return tuple(genes)


def discretize(alphas: Mapping[str, Float[Tensor, "edges operations"]]) -> Genotype:
    """Return the genotype that the architecture weights select at the end of a search.

    Each node keeps its two strongest edges, the strongest first, and on each the strongest operation. The strength of an
    edge is the largest softmax weight of an operation other than "none". Ties go to the earlier source and operation. The
    paper only says "the operations with the highest weight"; two edges per node are DARTS's rule.

    Args:
        alphas: Architecture weights before their softmax, by kind of cell. Rows are edges, by target node and then by
            source; columns are `OPERATIONS`.
    """
    return Genotype(**{kind: _strongest(alphas[kind]) for kind in KINDS})


def _strongest(alpha: Tensor) -> Genes:
    weights = alpha.detach().softmax(dim=1)[:, 1:].tolist()
    genes: list[tuple[str, int]] = []
    start, sources = 0, 2
    while start < len(weights):
        edges = weights[start : start + sources]
        ranked = sorted(range(len(edges)), key=lambda source: -max(edges[source]))[:2]
        genes += [(OPERATIONS[1 + edges[source].index(max(edges[source]))], source) for source in ranked]
        start, sources = start + sources, sources + 1
    return tuple(genes)
