"""The settings of TDFNet (Zhao et al., IEEE/ACM TASLP 2023): sizes, Table V's variants, and choices that the paper leaves
open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from affekt.errors import BadConfig
from affekt.models.base import check_sizes


@dataclass(frozen=True)
class TDFNetConfig:
    """The settings of TDFNet. The defaults follow the paper; for details that it does not state, they are the most plausible
    choice.
    Lengths are in frames, widths in features."""

    speech_frames: int | Literal["any"] = 512
    """The fixed length: 512 of HuBERT's frames are 10.24 s."""
    text_tokens: int | Literal["any"] = 128
    masked: bool = False
    """If true, padding is masked, so that it changes nothing. The paper has no masks: padding is treated as frames."""
    speech_dim: int = 1024
    """Features of a frame; HuBERT large has 1024. Table V's "w/o ME" has 128 log-mel features, and is otherwise the same."""
    text_dim: int = 768
    """Features of a token; BERT base has 768."""
    speaker_dim: int = 192
    """Size of the speaker vector; ECAPA-TDNN's has 192 numbers."""
    dim: int = 768
    """d: the only width for which U (eq. 9) and O (eq. 10) have exactly the sizes in the paper."""
    heads: int = 12
    feedforward: int | Literal["square"] = 4096
    """Width of the feed-forward layers. "square": the one matrix W of eq. 5 and 7, with its GELU."""
    feedforward_scaled: bool = False
    """If true, the width of the feed-forward layers is halved in every block, like the width of the sequence. The paper has
    one number "for each layer"."""
    layers: int = 2
    """Number of layers of every encoder."""
    blocks: int = 2
    """N: number of blocks of the deep-scale transformer."""
    speech_stride: int = 8
    """Stride of the first block's CNN, 512 -> 64 frames; later blocks have stride 2."""
    text_stride: int = 2
    """Stride of the first block's CNN, 128 -> 64 tokens."""
    path: Literal["both", "audio", "text"] = "both"
    """Inputs of the model: speech and text, or only one of them, as in two rows of Table V."""
    deep_scale: Literal["full", "first_cnn", "none"] = "full"
    """The deep-scale transformer (DST). Table V's "w/o DST" is "none"; "first_cnn" keeps A' and T', which its first encoder
    and CNN produce."""
    mutual: bool = True
    """If true, the model has the mutual transformer (MT), whose outputs are C, C_AT and C_TA."""
    speaker: bool = True
    """If true, the model uses the speaker vector S. In the paper only the mutual transformer uses S, so "w/o MT" drops
    both."""
    projection: Literal["speech", "both"] = "speech"
    """Which streams have a linear layer to the width d. BERT's text already has that width."""
    embeddings: Literal["projected", "raw", "encoded"] = "projected"
    """The A and T of eq. 6-8 and 10: the projected features; the raw features (in eq. 10 only, since eq. 8 needs equal
    widths); or the output of the deep-scale transformer's first encoder."""
    primes: Literal["after_cnn", "before_cnn"] = "after_cnn"
    """Where in the first block A' and T' of eq. 10 are taken. With "after_cnn", O has the size in the paper."""
    first_encoder: Literal["once", "every_block"] = "once"
    """Which blocks have an encoder before the CNN: only the first, or all. In Fig. 2's legend, later blocks have none."""
    kernel: int | Literal["stride"] = "stride"
    """Kernel size of the CNNs; not in the paper. "stride": equal to the stride, without padding. A number must be odd, with
    padding of half the kernel."""
    gru_sizes: Literal["halved", "same"] = "halved"
    """Sizes of the two GRUs of a block: 768 and 384 in the first; halved in every further block, or the same. The paper only
    states 768 and 384, but its D_2 and H_2 have width 192, which needs halved sizes."""
    bidirectional: bool = False
    """If true, the GRUs have two directions, each of half the width."""
    shared: tuple[Literal["gru", "cnn", "encoder"], ...] = ("gru",)
    """The layers whose weights speech and text share. The paper names the GRUs only."""
    literal_eq5: bool = False
    """If true, the second residual of eq. 5 and 7 is the layer's input, as in the paper, not the first norm's output."""
    mutual_layers: Literal["raw", "updated", "one"] = "raw"
    """Keys and values of the second mutual layer: the other stream's input to the mutual transformer ("raw"), or the output
    of its first layer ("updated"). "one": there is only one layer for each direction, the other reading of "two mutual
    transformer layers"."""
    mutual_pooling: Literal["mean+max", "mean"] = "mean+max"
    """Pooling of C, C_AT and C_TA. Eq. 9 has the average; U has the paper's 6d + f entries only with the maximum too."""
    gate: Literal["full", "parts", "scalar"] = "full"
    """One weight for every entry of O ("full"), for every group of O ("parts"), or for all of O ("scalar")."""
    gate_bias: bool = False
    """If true, the gate has a bias. Eq. 11 has none."""
    inner_product: bool = False
    """If true, alpha^T O in eq. 11 is an inner product, so that all logits are computed from a single number; otherwise O is
    multiplied by alpha elementwise."""
    gelu_logits: bool = True
    """If true, a GELU is applied to the logits, as in eq. 11."""
    positions: Literal["none", "sinusoids"] = "none"
    """Position encoding. None by default, since the features of HuBERT and BERT already contain positions."""
    dropout: float = 0.1
    """Dropout of both residual branches. The paper states none."""
    attention_dropout: float = 0.1
    """Dropout of the attention weights. The paper states none."""
    fused_dropout: float = 0.0
    """Dropout of the classifier's input. Our addition."""
    input_norm: Literal["none", "standard"] = "none"
    """Normalization of the features, and of the speaker's vector; see `StreamInput`."""

    def __post_init__(self) -> None:
        check_sizes(self)
        self._check_widths()
        self._check_choices()

    def _check_widths(self) -> None:
        if self.dim % 2**self.blocks:
            raise BadConfig(
                f"dim = {self.dim} cannot be halved {self.blocks} times (blocks): expected a multiple of 2^blocks"
            )
        for width in (self.dim // 2**number for number in range(self.blocks + 1)):
            if width % self.heads:
                raise BadConfig(f"heads = {self.heads} does not divide {width}, the width of one of the blocks")
        if self.kernel != "stride" and self.kernel % 2 == 0:
            raise BadConfig(f"kernel = {self.kernel}: expected an odd number, or 'stride'")

    def _check_choices(self) -> None:
        if self.masked and self.bidirectional:
            raise BadConfig(
                "bidirectional = true makes GRUs read padding before real frames, which masked = true excludes: "
                "set one of them to false"
            )
        if self.mutual and self.path != "both":
            raise BadConfig(
                f"the mutual transformer needs speech and text: with path = {self.path!r} set mutual = false"
            )
        if "cnn" in self.shared and self.kernel == "stride" and self.speech_stride != self.text_stride:
            raise BadConfig(
                "speech and text cannot share a CNN whose kernels are their strides: set kernel to a number"
            )
        if self.deep_scale == "none" and self.embeddings == "encoded":
            raise BadConfig(
                "embeddings = 'encoded' needs the deep-scale transformer's encoder: set deep_scale = 'full'"
            )
        if self.deep_scale == "none" and self.embeddings == "raw" and not self.mutual:
            raise BadConfig(
                "embeddings = 'raw' with neither DST nor MT leaves the projection unused: set embeddings = 'projected'"
            )

    @property
    def paths(self) -> tuple[str, ...]:
        return {"both": ("speech", "text"), "audio": ("speech",), "text": ("text",)}[self.path]

    @property
    def streams(self) -> tuple[str, ...]:
        return (*self.paths, "speaker") if self.speaker else self.paths
