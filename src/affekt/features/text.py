"""Text encoders of transformers, from a folder or by their name on the hub.

BERT (Devlin et al., 2019), RoBERTa (Liu et al., 2019) and MiniLM (Wang et al., 2020), each of any size. MiniLM has BERT's
architecture; it is a separate feature so that recipes and the store name the right encoder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from affekt.batch import Stream, frame_mask
from affekt.errors import BadConfig
from affekt.extras import need
from affekt.features.base import TextFeature
from affekt.features.transformers_encoder import Checkpoint, EncoderConfig, TransformersEncoder

MIN_LENGTH = 3  # tokens: one, and the two special tokens around it


@dataclass(frozen=True)
class TextEncoderConfig(EncoderConfig):
    """The settings of a text encoder."""

    longest: int | None = None
    """Maximum number of tokens per text, including the special tokens.

    Longer texts are truncated, but keep the last special token. None: texts are not truncated, and a text that is longer than
    the network's limit is an error.
    """
    special: bool = True
    """If true, the stream includes the special tokens, [CLS] and [SEP] or <s> and </s>."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.longest is not None and self.longest < MIN_LENGTH:
            raise BadConfig(
                f"longest = {self.longest}: expected at least {MIN_LENGTH}: one token and the two special tokens"
            )


class TextEncoder(TextFeature, TransformersEncoder):
    """The base class of text encoders of transformers. The checkpoint's tokenizer determines whether texts are lower-cased.

    The tokenizer is part of the state, so settings and state are sufficient to rebuild the feature. A tokenizer that is
    missing, not a fast one, or of another network raises `BadConfig`.
    """

    Config = TextEncoderConfig
    libraries = ("torch", "transformers", "tokenizers")
    options: ClassVar[dict[str, Any]] = {"add_pooling_layer": False}
    """No pooling layer: it follows the last block."""
    extra_file = "tokenizer.json"

    def __init__(self, config: TextEncoderConfig, network: nn.Module | None = None, tokenizer: Any = None) -> None:
        """Build the encoder. `tokenizer` is a `tokenizers.Tokenizer`; without one, it must be loaded with the state."""
        super().__init__(config, network)
        self.padding = int(config.architecture["pad_token_id"])
        self.positions = self._positions()
        if config.longest is not None and config.longest > self.positions:
            raise BadConfig(
                f"longest = {config.longest}: this {self.model_type} accepts at most {self.positions} tokens"
            )
        self.tokenizer: Any = None if tokenizer is None else self._prepare(tokenizer)

    @classmethod
    def _extra_arguments(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        return {"tokenizer": checkpoint.tokenizer()}

    def forward(self, texts: Sequence[str]) -> Stream:  # type: ignore[override]
        """Encode texts as (batch, tokens, dim), with a mask and `word_index`, each token's word in `text.split()`.

        Special tokens have the index -1, and so do tokens of whitespace, which RoBERTa's tokenizer produces for repeated
        spaces. Raises `BadConfig` for a text without tokens or with too many.
        """
        encoded = [self._encode_text(text, encoding) for text, encoding in self._tokenize(texts)]
        states = self._states([text.ids for text in encoded])
        values = [row[torch.from_numpy(text.positions)] for row, text in zip(states, encoded, strict=True)]
        words = [torch.from_numpy(text.words) for text in encoded]
        counts = torch.tensor([len(text.positions) for text in encoded], device=states.device)
        return Stream(
            pad_sequence(values, batch_first=True),
            frame_mask(counts, int(counts.max())),
            None,
            pad_sequence(words, batch_first=True, padding_value=-1).to(states.device),
        )

    def word_indices(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Return each text's `word_index` (tokens,) as `forward` does, without running the network."""
        return [self._encode_text(text, encoding).words for text, encoding in self._tokenize(texts)]

    def get_extra_state(self) -> Tensor:
        """Return the tokenizer as the bytes of its JSON, so that it is part of the hash of stored features."""
        content = b"" if self.tokenizer is None else self.tokenizer.to_str().encode()
        return torch.from_numpy(np.frombuffer(bytearray(content), np.uint8))

    def set_extra_state(self, state: Tensor) -> None:
        """Load the tokenizer from the bytes of its JSON."""
        tokenizers = need("tokenizers", extra="train", purpose=f"a {self.model_type} encoder")
        content = bytes(state.cpu().numpy()).decode()
        self.tokenizer = self._prepare(tokenizers.Tokenizer.from_str(content)) if content else None

    def _prepare(self, tokenizer: Any) -> Any:
        """Configure the tokenizer's truncation and return it. Raises `BadConfig` if it is not this network's."""
        vocabulary, size = self.config.architecture["vocab_size"], tokenizer.get_vocab_size()
        if size > vocabulary:
            raise BadConfig(
                f"the tokenizer has {size} tokens, but this {self.model_type} has {vocabulary}: "
                "use the tokenizer that was saved with it"
            )
        tokenizer.no_padding()
        tokenizer.no_truncation()
        if self.config.longest is not None:
            tokenizer.enable_truncation(self.config.longest)
        return tokenizer

    def _tokenize(self, texts: Sequence[str]) -> Iterator[tuple[str, Any]]:
        """Return each text with the tokenizer's encoding."""
        return zip(texts, self.tokenizer.encode_batch(list(texts)), strict=True)

    def _encode_text(self, text: str, encoding: Any) -> _EncodedText:
        if len(encoding.ids) > self.positions:
            raise BadConfig(
                f"{text[:40]!r}... has {len(encoding.ids)} tokens, but this {self.model_type} accepts at most "
                f"{self.positions}: set longest = {self.positions} to truncate longer texts"
            )
        is_special = np.array(encoding.special_tokens_mask, bool)
        words = np.where(is_special, -1, word_indices_of(text, encoding.offsets))
        positions = np.flatnonzero(~is_special | self.config.special)
        if not len(positions):
            raise BadConfig(f"{text!r} has no token: add text, or set special = true, which keeps the special tokens")
        return _EncodedText(encoding.ids, positions, words[positions])

    def _states(self, ids: Sequence[Sequence[int]]) -> Float[Tensor, "batch tokens dim"]:
        """Run the network and return the states of the configured blocks, concatenated along dim."""
        device = next(self.network.parameters()).device
        # RoBERTa's positions start after the padding token's id, so the padding must be the network's own.
        rows = pad_sequence([torch.tensor(row) for row in ids], batch_first=True, padding_value=self.padding).to(device)
        counts = torch.tensor([len(row) for row in ids], device=device)
        mask = None if bool((counts == rows.shape[1]).all()) else frame_mask(counts, rows.shape[1]).long()
        states = self._hidden_states(rows, attention_mask=mask)
        return torch.cat([states[block] for block in self.blocks], dim=2)

    def _positions(self) -> int:
        """Return the maximum number of tokens per text."""
        return int(self.config.architecture["max_position_embeddings"])

    def _layers(self) -> nn.ModuleList:
        return self.network.encoder.layer


@dataclass(frozen=True)
class _EncodedText:
    """A text's tokens: all of them, which are the input of the network, and those that are part of the stream."""

    ids: list[int]
    """Ids of all tokens."""
    positions: NDArray[np.int64]
    """Positions of the tokens in the stream."""
    words: NDArray[np.int64]
    """Index of each of these tokens' word."""


def word_indices_of(text: str, spans: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Return the index in `text.split()` of the word in which each span of characters begins; -1 for whitespace only."""
    begins = [not character.isspace() and (at == 0 or text[at - 1].isspace()) for at, character in enumerate(text)]
    word_at = np.where([character.isspace() for character in text], -1, np.cumsum(begins) - 1) if text else np.zeros(0)
    indices = [next((int(word) for word in word_at[start:end] if word >= 0), -1) for start, end in spans]
    return np.array(indices, np.int64)


class BERT(TextEncoder):
    """BERT."""

    model_type = "bert"
    network_class = "transformers.models.bert.modeling_bert:BertModel"


class MiniLM(BERT):
    """MiniLM, a small distilled BERT. Its checkpoints are of the model type bert."""


class RoBERTa(TextEncoder):
    """RoBERTa."""

    model_type = "roberta"
    network_class = "transformers.models.roberta.modeling_roberta:RobertaModel"

    def _positions(self) -> int:
        return super()._positions() - self.padding - 1  # its positions start after the padding token's id
