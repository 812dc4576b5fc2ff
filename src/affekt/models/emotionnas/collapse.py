"""Whether an architecture search collapsed into identities: the best known way in which DARTS goes wrong. A skip connection
has no weights to learn and so is ahead of the convolutions while they are still bad; searched for too long, or on an easy
task, a normal cell fills with them, and the derived network learns little (Zela et al., "Understanding and Robustifying
Differentiable Architecture Search", ICLR 2020)."""

from __future__ import annotations

from affekt.models.emotionnas.genotypes import Genotype

# Of a normal cell's eight operations P-DARTS keeps at most two skip connections (Chen et al., ICCV 2019, its M = 2); the
# best cell of DARTS's own, darts-v2, has two. DARTS+ (Liang et al., arXiv 1909.06035) is stricter and ends a search at the
# second one; but that is a rule for stopping in time, and would call every third cell that is drawn by chance collapsed.
LARGEST_SHARE = 2 / 8


def skips(genotype: Genotype) -> int:
    """How many of the operations that the normal cell keeps are skip connections."""
    return sum(name == "skip_connect" for name, _ in genotype.normal)


def collapsed(genotype: Genotype) -> bool:
    """Whether more than a quarter of the normal cell's operations are skip connections: of four nodes' eight, three.

    A single one is never a collapse, however few nodes there are. Reduction cells are not looked at, nor are they in the
    literature: there a skip connection has weights, for it must halve the image.
    """
    return skips(genotype) > max(1, LARGEST_SHARE * len(genotype.normal))
