"""How fractal attention's work is cut for a GPU: what a kernel is compiled for, and who does what."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from affekt.models.layers.fractal.options import FractalOptions

# Elements of a block, four for each of 128 threads: with fewer, a row's sums would cross from warp to warp.
FEWEST = 512


class Form(NamedTuple):
    """What a kernel is compiled for.

    width, lanes: a head's, and that up to the next power of two. tile: frames of a tile. For each scale, finest first:
    blocks, the windows that are worked on together; starts, where its rows begin among the `rows` of all coarse scales in a
    program's memory. sharpness: what scores are multiplied by. ragged: utterances have lengths of their own. double: sums
    are in 64 bits.
    """

    factor: int
    scales: int
    width: int
    lanes: int
    tile: int
    blocks: tuple[int, ...]
    starts: tuple[int, ...]
    rows: int
    sharpness: float
    dropout: float
    mask_window_padding: bool
    repeat: bool
    ragged: bool
    double: bool


class Walk(NamedTuple):
    """Who does what: a head's tiles, the items (all tiles of all heads), the items of one program, the programs."""

    tiles: int
    items: int
    share: int
    programs: int


@lru_cache(maxsize=1024)
def form_for(options: FractalOptions, *, width: int, frames: int, elements: int, ragged: bool, double: bool) -> Form:
    """elements: of one block of one stream, for windows of three frames of 32 bits; fewer where either is more."""
    factor = options.factor
    scales = 1
    while scales < options.scales and factor**scales <= frames:  # a scale without frames contributes nothing
        scales += 1
    lanes = _power_of_two(width)
    elements = elements // 2 if double else elements
    most = max(1, _power_of_two(3 * elements // (factor * lanes) + 1) // 2)
    tile = factor**scales * max(1, most // factor ** (scales - 1))
    windows = [tile // factor ** (scale + 1) for scale in range(scales)]
    blocks = tuple(min(most, max(FEWEST // lanes, _power_of_two(count))) for count in windows)
    counts = [0, *(factor * count for count in windows[1:])]
    return Form(
        factor=factor,
        scales=scales,
        width=width,
        lanes=lanes,
        tile=tile,
        blocks=blocks,
        starts=tuple(sum(counts[:scale]) for scale in range(scales)),
        rows=sum(counts),
        sharpness=1 / (options.temperature or width**0.5),
        dropout=options.dropout,
        mask_window_padding=options.mask_window_padding,
        repeat=options.upsampling == "repeat",
        ragged=ragged,
        double=double,
    )


def walk_for(form: Form, *, heads: int, frames: int, programs: int) -> Walk:
    """heads: of all utterances. programs: at most so many."""
    tiles = -(-frames // form.tile)
    items = heads * tiles
    share = max(1, -(-items // programs))
    return Walk(tiles, items, share, -(-items // share))


def bytes_moved(batch: int, frames: int, dim: int, *, itemsize: int, back: bool = False) -> int:
    """The bytes that must cross a card's memory: query, key and value once and the output once; on the way back query, key,
    value and the output's gradient once, and three gradients once."""
    return (7 if back else 4) * batch * frames * dim * itemsize


def _power_of_two(number: int) -> int:
    """The least that is not below."""
    return 1 << (number - 1).bit_length()
