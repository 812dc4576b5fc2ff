"""Detection of a collapsed architecture search, the best known failure of DARTS.

A skip connection has no weights to learn and is therefore preferred to the convolutions early in training. In a search that
runs too long, or on an easy task, the normal cell fills with skip connections, and the derived network learns little (Zela et
al., "Understanding and Robustifying Differentiable Architecture Search", ICLR 2020).
"""

from __future__ import annotations

from affekt.models.emotionnas.genotypes import Genotype

# P-DARTS keeps at most two skip connections among a normal cell's eight operations (Chen et al., ICCV 2019, where M = 2);
# DARTS's best cell, darts-v2, has two. DARTS+ (Liang et al., arXiv 1909.06035) is stricter and ends a search at the second
# skip connection, but that is an early-stopping rule; as a test of collapse it would reject every third random cell.
MAX_FRACTION = 2 / 8


def count_skips(genotype: Genotype) -> int:
    """Return the number of skip connections among the normal cell's operations."""
    return sum(name == "skip_connect" for name, _ in genotype.normal)


def is_collapsed(genotype: Genotype) -> bool:
    """Return whether more than a quarter of the normal cell's operations are skip connections: three of eight for four nodes.

    A single skip connection is never a collapse, however few nodes there are. Reduction cells do not count, here as in
    the literature: their skip connections have weights, because they must halve the image.
    """
    return count_skips(genotype) > max(1, MAX_FRACTION * len(genotype.normal))
