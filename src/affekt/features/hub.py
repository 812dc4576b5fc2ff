"""Checkpoints as transformers writes them: a folder, or a name on the hub, whose files transformers fetches and keeps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from affekt.errors import BadConfig
from affekt.extras import need

FOR_TRAINING = {"masked_spec_embed"}  # a weight that stands in for masked frames: some checkpoints lack it


@dataclass(frozen=True)
class Checkpoint:
    """Where a network is read from. Its methods raise `BadConfig` for what is not there or cannot be used."""

    source: str  # a folder, or a name on the hub
    revision: str = "main"
    local: bool = False

    @classmethod
    def at(cls, folder: Path | None, name: str, revision: str, kind: str) -> Checkpoint:
        """The folder, if one is given; else the name on the hub."""
        if folder is None and not name:
            raise BadConfig(f"{kind} needs folder, where a checkpoint's files are, or checkpoint, its name on the hub")
        if folder is None:
            return cls(name, revision)
        if not (folder / "config.json").is_file():
            raise BadConfig(
                f"{folder} holds no checkpoint: expected config.json, preprocessor_config.json and model.safetensors"
            )
        return cls(str(folder), local=True)

    def settings(self) -> dict[str, Any]:
        """config.json."""
        from transformers import PretrainedConfig

        with self._read("config.json"):
            stored: dict[str, Any] = PretrainedConfig.get_config_dict(self.source, **self._where())[0]
        return stored

    def preprocessing(self) -> dict[str, Any]:
        """preprocessor_config.json, or the same within processor_config.json."""
        from transformers.feature_extraction_utils import FeatureExtractionMixin

        if self.local and not list(Path(self.source).glob("p*processor_config.json")):
            raise BadConfig(
                f"{self.source} has no preprocessor_config.json, which says whether waveforms are normalised: "
                "add it, or set normalise = true or false"
            )
        with self._read("preprocessor_config.json"):
            stored: dict[str, Any] = FeatureExtractionMixin.get_feature_extractor_dict(self.source, **self._where())[0]
        return stored

    def network(self, kind: Any, config: Any, renamed: Mapping[str, str]) -> nn.Module:
        """The network of this class with the checkpoint's weights, all of them.

        renamed: patterns of names in the checkpoint, and what they are called in the class.
        """
        if self.local and not list(Path(self.source).glob("*.safetensors")):
            raise BadConfig(self._without_safetensors())
        with _quiet(), self._read("safetensors"):
            network, found = kind.from_pretrained(
                self.source,
                config=config,
                use_safetensors=True,
                output_loading_info=True,
                key_mapping=dict(renamed) or None,
                **self._where(),
            )
        if missing := sorted(set(found["missing_keys"]) - FOR_TRAINING):
            raise BadConfig(f"{self.source} lacks {len(missing)} weights of a {kind.__name__}, first {missing[0]}")
        return network

    def _where(self) -> dict[str, Any]:
        return {"local_files_only": True} if self.local else {"revision": self.revision}

    def _without_safetensors(self) -> str:
        message = f"{self.source} has no safetensors"
        if pickled := sorted(Path(self.source).glob("*.bin")):
            target = pickled[0].with_name("model.safetensors")
            message += f", and {pickled[0].name} may carry code: affekt convert {pickled[0]} {target}"
        return message

    @contextlib.contextmanager
    def _read(self, what: str) -> Iterator[None]:
        """What transformers and the hub's client raise, as an error of ours that says what to do."""
        try:
            yield
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            if self.local:
                raise BadConfig(f"{self.source}: its {what} cannot be read: {reason}") from error
            raise BadConfig(
                f"{self.source} cannot be had from the hub ({what}): {reason} "
                "Without a connection, give folder, where its files are; they must be safetensors"
            ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' own report of the weights that a network leaves unused."""
    logging = need("transformers.utils.logging", extra="train", purpose="reading a checkpoint")
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
