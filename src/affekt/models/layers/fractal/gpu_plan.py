"""The division of fractal attention's work on a GPU: constants of the kernels, and work of their programs."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from affekt.models.layers.fractal.options import FractalOptions

# Minimum number of elements of a block, four for each of 128 threads: with fewer, sums over a row would span several warps.
MIN_ELEMENTS = 512


class KernelConstants(NamedTuple):
    """The constants that a kernel is compiled with. Tuples have one entry for each scale, finest first."""

    factor: int
    scales: int
    width: int
    """Width of a head."""
    lanes: int
    """The width, rounded up to a power of two."""
    tile: int
    """Frames of a tile."""
    blocks: tuple[int, ...]
    """Number of windows that are processed together."""
    starts: tuple[int, ...]
    """First row of the scale in a program's buffer."""
    rows: int
    """Number of rows of all coarse scales in a program's buffer."""
    score_scale: float
    """Number by which the scores are multiplied."""
    dropout: float
    mask_window_padding: bool
    repeat: bool
    """Up-sampling by repetition."""
    ragged: bool
    """If true, each utterance has its own length."""
    double: bool
    """If true, sums are in 64 bits."""


class Schedule(NamedTuple):
    """The distribution of work over programs."""

    tiles: int
    """Number of tiles of a head of an utterance."""
    items: int
    """Number of tiles of all heads of all utterances."""
    items_per_program: int
    """Number of consecutive tiles that a program processes; the last program may have fewer."""
    programs: int
    """Number of programs."""


@lru_cache(maxsize=1024)
def kernel_constants(
    options: FractalOptions, *, width: int, frames: int, elements: int, ragged: bool, double: bool
) -> KernelConstants:
    """Return a kernel's constants.

    Args:
        options: Heads, windows and scales.
        width: Width of a head.
        frames: Number of frames of the longest utterance.
        elements: Maximum number of elements in one block of one stream, for windows of three frames in 32 bits; larger
            windows or 64 bits reduce it.
        ragged: Whether each utterance has its own length.
        double: Whether sums are in 64 bits.
    """
    factor = options.factor
    scales = 1
    while scales < options.scales and factor**scales <= frames:  # a scale without frames contributes nothing
        scales += 1
    lanes = _power_of_two(width)
    elements = elements // 2 if double else elements
    # A tile is one window of the coarsest scale, or several, as long as a block has room for its windows of the finest scale.
    max_block = max(1, _power_of_two(3 * elements // (factor * lanes) + 1) // 2)
    tile = factor**scales * max(1, max_block // factor ** (scales - 1))
    windows = [tile // factor ** (scale + 1) for scale in range(scales)]
    blocks = tuple(min(max_block, max(MIN_ELEMENTS // lanes, _power_of_two(count))) for count in windows)
    counts = [0, *(factor * count for count in windows[1:])]
    return KernelConstants(
        factor=factor,
        scales=scales,
        width=width,
        lanes=lanes,
        tile=tile,
        blocks=blocks,
        starts=tuple(sum(counts[:scale]) for scale in range(scales)),
        rows=sum(counts),
        score_scale=1 / (options.temperature or width**0.5),
        dropout=options.dropout,
        mask_window_padding=options.mask_window_padding,
        repeat=options.upsampling == "repeat",
        ragged=ragged,
        double=double,
    )


def schedule(constants: KernelConstants, *, heads: int, frames: int, programs: int) -> Schedule:
    """Distribute the tiles of all heads of all utterances over at most `programs` programs.

    Args:
        constants: Constants of the kernel, with the number of frames in a tile.
        heads: Number of heads of all utterances together.
        frames: Number of frames of an utterance, with padding.
        programs: Largest number of programs.
    """
    tiles = -(-frames // constants.tile)
    items = heads * tiles
    items_per_program = max(1, -(-items // programs))
    return Schedule(tiles, items, items_per_program, -(-items // items_per_program))


def bytes_moved(batch: int, frames: int, dim: int, *, itemsize: int, backward: bool = False) -> int:
    """Return the bytes that must be transferred to and from a GPU's memory.

    Forward: query, key, value and the output, once each. Backward: query, key, value, the output's gradient and three
    gradients, once each.
    """
    return (7 if backward else 4) * batch * frames * dim * itemsize


def _power_of_two(number: int) -> int:
    """Return the smallest power of two that is at least `number`."""
    return 1 << (number - 1).bit_length()
