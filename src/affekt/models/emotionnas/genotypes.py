"""Genotypes: which operations a searched cell keeps (EmotionNAS, section 2.1; DARTS, Liu et al., ICLR 2019, section 2.4).

A cell has two inputs, 0 and 1, and intermediate nodes, 2 and up. A genotype lists two (operation, source) pairs for each
intermediate node in turn, of the normal and of the reduction cells. As JSON:

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
KINDS = ("normal", "reduce")  # of cells


@dataclass(frozen=True)
class Genotype:
    """The operations of the two kinds of cells: two (operation, source) pairs per intermediate node. Raises `BadConfig`."""

    normal: Genes
    reduce: Genes

    def __post_init__(self) -> None:
        for kind in KINDS:
            _check_genes(kind, getattr(self, kind))
        if len(self.normal) != len(self.reduce):
            raise BadConfig(
                f"a genotype of {len(self.normal) // 2} nodes in normal and {len(self.reduce) // 2} in reduce: "
                "both kinds of cells have as many"
            )

    @property
    def nodes(self) -> int:
        """Intermediate nodes of a cell."""
        return len(self.normal) // 2

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self)) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Genotype:
        """Raises `BadConfig` for what is not JSON, or not a genotype."""
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise BadConfig(f"a genotype that is not JSON: {error}") from error
        return cls.from_dict(data)

    @classmethod
    def from_dict(cls, data: Any) -> Genotype:
        if not isinstance(data, Mapping) or set(data) != set(KINDS):
            given = sorted(map(str, data)) if isinstance(data, Mapping) else type(data).__name__
            raise BadConfig(f"a genotype of {given}: expected an object with the keys normal and reduce")
        return cls(**{kind: _genes(kind, data[kind]) for kind in KINDS})


def _genes(kind: str, pairs: Any) -> Genes:
    if not isinstance(pairs, list | tuple) or not all(isinstance(p, list | tuple) and len(p) == 2 for p in pairs):
        raise BadConfig(f"genotype, {kind}: expected a list of [operation, source] pairs")
    return tuple((name, source) for name, source in pairs)


def _check_genes(kind: str, genes: Genes) -> None:
    if not genes or len(genes) % 2:
        raise BadConfig(f"genotype, {kind}: {len(genes)} pairs; expected two for each intermediate node")
    for place, (name, source) in enumerate(genes):
        if name not in OPERATIONS[1:]:
            raise BadConfig(
                f"genotype, {kind}, pair {place + 1}: operation {name!r}{did_you_mean(str(name), OPERATIONS[1:])} "
                f"(known: {', '.join(OPERATIONS[1:])})"
            )
        if isinstance(source, bool) or not isinstance(source, int) or not 0 <= source < 2 + place // 2:
            raise BadConfig(
                f"genotype, {kind}, pair {place + 1}: source {source!r}; node {2 + place // 2} takes 0 to {1 + place // 2}"
            )


# What DARTS found on CIFAR-10 (its Figures 4 and 5), first and second order: known cells to compare a search's with.
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


def genotype_of(genotype: str | Genotype | Mapping[str, Any]) -> Genotype:
    """A genotype, the one of a name in `GENOTYPES`, or of a JSON object. Raises `BadConfig`."""
    if isinstance(genotype, Genotype):
        return genotype
    if isinstance(genotype, Mapping):
        return Genotype.from_dict(genotype)
    if genotype not in GENOTYPES:
        raise BadConfig(
            f"there is no genotype {genotype!r}{did_you_mean(genotype, GENOTYPES)} (known: {', '.join(GENOTYPES)})"
        )
    return GENOTYPES[genotype]


def draw_genotype(generator: np.random.Generator, nodes: int = 4) -> Genotype:
    """A genotype drawn at random, for what a search is compared with: each node of both kinds of cells takes two different
    sources, and from each of them any operation but "none", all as likely. The same generator gives the same genotype."""
    if nodes < 1:
        raise BadConfig(f"nodes = {nodes}: expected 1 or more")
    return Genotype(**{kind: _drawn_genes(generator, nodes) for kind in KINDS})


def _drawn_genes(generator: np.random.Generator, nodes: int) -> Genes:
    genes: list[tuple[str, int]] = []
    for node in range(nodes):
        sources = generator.choice(2 + node, 2, replace=False).tolist()
        operations = generator.choice(OPERATIONS[1:], 2).tolist()
        genes += zip(operations, sources, strict=True)
    return tuple(genes)


def discretise(alphas: Mapping[str, Float[Tensor, "edges operations"]]) -> Genotype:
    """The genotype at the end of a search: what the architecture's weights before their softmax, by kind of cell, say.

    Rows are edges, by target node and then by source; columns are `OPERATIONS`. An edge's rank is the largest share that
    its softmax gives any operation but "none"; each node keeps its two edges of highest rank, the higher first, and each
    of them that operation. Of equals, the earlier source and the earlier operation. The paper says no more than "the
    operations with the highest weight"; two edges per node are DARTS's.
    """
    return Genotype(**{kind: _strongest(alphas[kind]) for kind in KINDS})


def _strongest(alpha: Tensor) -> Genes:
    shares = alpha.detach().softmax(dim=1)[:, 1:].tolist()
    genes: list[tuple[str, int]] = []
    start, sources = 0, 2
    while start < len(shares):
        edges = shares[start : start + sources]
        ranked = sorted(range(len(edges)), key=lambda source: -max(edges[source]))[:2]
        genes += [(OPERATIONS[1 + edges[source].index(max(edges[source]))], source) for source in ranked]
        start, sources = start + sources, sources + 1
    return tuple(genes)
