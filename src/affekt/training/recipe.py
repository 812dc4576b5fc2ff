"""A recipe: everything that decides a training, as frozen dataclasses that TOML writes down."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

from affekt.bundle.folder import Bundle
from affekt.bundle.pipeline import rebuild
from affekt.config import decode, decode_named, encode, override, read_toml
from affekt.corpora.source import Source
from affekt.errors import BadConfig
from affekt.features import features
from affekt.features.augment import Augmentation
from affekt.features.base import Feature
from affekt.labels import LabelSet, label_set
from affekt.models import models
from affekt.models.base import EmotionModel, FeatureSpec
from affekt.protocols import protocols
from affekt.protocols.base import Protocol
from affekt.registry import did_you_mean
from affekt.runs.folder import Run
from affekt.runs.selection import SELECTION_SUBSET, Rule, select_epoch
from affekt.training.finetuning import load_matching_weights
from affekt.training.strategies import DEFAULT, strategies
from affekt.utterance import Utterance

FUSION = "emotionnas-fusion"
BRANCHES = {"spectrogram": "emotionnas-spectrogram", "recurrent": "emotionnas-recurrent"}
RECIPES = Path(__file__).parent.parent / "recipes"


@dataclass(frozen=True)
class Probe:
    """A linear probe to stand beside the model: on these states of the encoder, on log-mel where there are none."""

    name: str
    strength: float  # C, the inverse of the L2 penalty's weight
    blocks: tuple[int, ...] = ()


@dataclass(frozen=True)
class TrainingConfig:
    epochs: int
    batch_size: int = 32
    subset: Literal["train", "validation"] = "train"
    """The subset that is trained on. "validation" is for models over finished networks, which know their own training
    subset too well; no subset is then left that could select an epoch."""
    tune: Literal["head", "all"] = "head"  # the model behind a frozen encoder, or the encoder with it
    patience: int = 0  # epochs without a better UA on the validation part after which training ends; 0 for never
    sampling: Literal["plain", "balanced"] = "plain"  # balanced: an epoch draws every emotion equally often
    votes: float = (
        0.0  # share of the target that a crowd's votes make, where the corpus has them; the label makes the rest
    )
    # An encoder, usually a larger one, whose frames of the unaltered speech the tuned one learns to foretell: settings as in
    # [encoder]. It is heard in training alone.
    teacher: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"  # or "cuda": as torch calls it
    threads: int = 0  # of torch; 0 leaves torch's own choice. The result is bit-identical only at an equal number
    augmentation: Augmentation = field(default_factory=Augmentation)
    strategy: Mapping[str, Any] = field(default_factory=dict)
    """How the model is trained: the `name` of a strategy, "supervised" where none is given, and its settings."""

    renamed: ClassVar[Mapping[str, str]] = {
        "part": "subset",
        "optimisation": "strategy",
        "architecture": "strategy",
        "alphas_on": "strategy.learn_alphas_on",
    }

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2:
            raise BadConfig(
                f"epochs = {self.epochs}, batch_size = {self.batch_size}: expected at least 1 epoch and 2 utterances"
            )
        if self.teacher and self.tune != "all":
            raise BadConfig("a teacher needs tune = 'all'")
        if self.patience < 0 or not 0 <= self.votes <= 1:
            raise BadConfig(
                f"patience = {self.patience}, votes = {self.votes}: expected no negative number, and a share"
            )


@dataclass(frozen=True)
class Recipe:
    name: str
    labels: str  # a label set of affekt.labels, or "all": the emotions that occur
    corpora: tuple[str | Source, ...]  # "cremad", "folder:PATH", or a table of a source's settings
    protocol: Mapping[str, Any]  # name of a protocol and its settings
    training: TrainingConfig
    encoder: Mapping[str, Any] = field(
        default_factory=dict
    )  # what fills the stream "speech": name of a feature, the folder of its weights, its settings
    # What fills the others, likewise, by the part they play: "text", "speaker", "spectrogram". Those that the model does not
    # take with its settings are not computed.
    streams: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)  # name of a model and its settings
    # Of emotionnas-fusion: the run folders of the networks that it stands over, `spectrogram` and `recurrent`. Their settings
    # are the model's; each gives the weights of the epoch that its own selection chooses.
    branches: Mapping[str, str] = field(default_factory=dict)
    start: str = ""  # a bundle to start from, instead of encoder and model: its settings and its weights
    seed: int = 0
    split_seed: int = 0  # of what the protocol draws; the trainings' seeds leave the split as it is
    folds: tuple[int, ...] = ()  # of the protocol's folds, those that are trained, counted from 1; none named means all
    repeats: int = 1  # trainings, alike but for their seeds: seed, seed + 1, ...; a bundle averages their probabilities
    selection: Rule = "last"
    temperature: float | Literal["fitted"] = 1.0  # divides a bundle's logits; "fitted" on the validation part
    about: str = ""  # a sentence for the card
    probes: tuple[Probe, ...] = ()

    def __post_init__(self) -> None:
        """What a recipe names must exist, before anything is computed."""
        if self.labels != "all":
            label_set(self.labels)
        if self.training.teacher:
            feature_class(self.training.teacher, "training.teacher")
        if bool(self.start) == bool(self.encoder or self.streams or self.model):
            raise BadConfig("a recipe needs encoder and model, or start, a bundle that has both")
        protocol = self.build_protocol()
        self._check_streams()
        self._check_branches()
        if not self.sources:
            raise BadConfig("corpora names none")
        if self.repeats < 1:
            raise BadConfig(f"repeats = {self.repeats}: expected at least 1")
        for setting, asked in (
            (f"selection = {self.selection!r}", SELECTION_SUBSET.get(self.selection) == "validation"),
            ("training.patience", bool(self.training.patience)),
            ("temperature = 'fitted'", self.temperature == "fitted"),
        ):
            if asked and self.training.subset == "validation":
                raise BadConfig(f"{setting} needs a validation part, and training.subset = 'validation' trains on it")
            if asked and not protocol.has_validation:
                raise BadConfig(f"{setting} needs a validation part: give the protocol its setting validation")
        strategy, strategy_config = self.strategy_class()
        strategy.check(strategy_config, self.training)
        strategy_setting = strategy.validation_setting(strategy_config)
        for setting, needed in (
            ("training.subset = 'validation'", self.training.subset == "validation"),
            (f"training.strategy.{strategy_setting}", bool(strategy_setting)),
        ):
            if needed and not protocol.has_validation:
                raise BadConfig(f"{setting} needs a validation part: give the protocol its setting validation")
        for probe in self.probes:
            _, encoder = self.encoder_class("speech")
            if missing := set(probe.blocks) - set(getattr(encoder, "blocks", ())):
                raise BadConfig(
                    f"probe {probe.name!r} asks for blocks {sorted(missing)}, which the encoder does not give"
                )

    @property
    def sources(self) -> tuple[Source, ...]:
        return tuple(one if isinstance(one, Source) else Source.parse(one) for one in self.corpora)

    def build_protocol(self) -> Protocol:
        _, settings = decode_named(protocols, self.protocol, "protocol")
        return cast(Protocol, settings)

    def label_set(self, utterances: Sequence[Utterance]) -> LabelSet:
        """The recipe's label set; the utterances decide it where it is "all"."""
        return LabelSet.all_of(utterances, "all") if self.labels == "all" else label_set(self.labels)

    @property
    def origin(self) -> Bundle | None:
        """The bundle to start from."""
        return Bundle.open(self.start) if self.start else None

    def _section(self, name: str) -> Mapping[str, Any]:
        if self.origin:
            section: Mapping[str, Any] = self.origin.section(name)
            return section
        if name == "model":
            missing = {branch: run for branch, run in self.branch_runs().items() if branch not in self.model}
            return {**{branch: _settings_of(branch, run) for branch, run in missing.items()}, **self.model}
        return {"encoder": self.encoder, "streams": self.streams}[name]

    def branch_runs(self) -> dict[str, Run]:
        """The runs of `branches`."""
        return {branch: Run(Path(folder).expanduser()) for branch, folder in self.branches.items()}

    def _check_branches(self) -> None:
        """Raise `BadConfig` for branches of what has none, and for a fusion of finished networks without them."""
        kind, config = self.model_class()
        fuses = kind is models[FUSION]
        if self.branches and (not fuses or set(self.branches) != set(BRANCHES)):
            raise BadConfig(f"branches names {', '.join(self.branches)}: {FUSION} takes both {' and '.join(BRANCHES)}")
        if fuses and config.frozen and not self.branches and not self.origin:
            raise BadConfig(
                f"{FUSION} stands over finished networks: name their run folders in [branches], "
                f"{' and '.join(BRANCHES)}, or train all together with model.frozen = false"
            )

    def _check_streams(self) -> None:
        """Raise `BadConfig` where a stream that the model takes has no feature, or one that it does not take has one."""
        if "speech" in self.streams:
            raise BadConfig("streams.speech: the stream speech is filled by [encoder]")
        kind, config = self.model_class()
        taken, known = kind.streams_of(config), set(self.filled)
        if missing := [name for name in taken if name not in known]:
            where = "[encoder]" if missing[0] == "speech" else f"[streams.{missing[0]}]"
            raise BadConfig(f"{self.model_name} takes the stream {missing[0]}, which nothing fills: give {where}")
        if unknown := sorted(known - set(kind.streams)):
            raise BadConfig(f"{self.model_name} takes no stream {unknown[0]} (it takes {', '.join(kind.streams)})")
        for stream in taken:
            input = self.encoder_class(stream)[0].input
            if (input == "text") != (stream == "text"):
                raise BadConfig(
                    f"the stream {stream} is filled by {self.encoder_name(stream)}, which is made of {input}"
                )
        if self.training.tune == "all" and taken != ("speech",):
            raise BadConfig(
                f"tune = 'all' trains a speech encoder alone, and {self.model_name} takes {', '.join(taken)}"
            )

    @property
    def filled(self) -> dict[str, Mapping[str, Any]]:
        """Stream -> the section of the feature that fills it; all that the recipe names."""
        if self.origin:
            speech, others = self.origin.config.get("encoder"), self.origin.config.get("streams", {})
        else:
            speech, others = self.encoder, self.streams
        return {**({"speech": speech} if speech else {}), **others}

    @property
    def taken(self) -> tuple[str, ...]:
        """The streams that the model takes with its settings, in its order."""
        kind, config = self.model_class()
        taken: tuple[str, ...] = kind.streams_of(config)
        return taken

    def encoder_name(self, stream: str) -> str:
        return str(self.filled[stream]["name"])

    @property
    def model_name(self) -> str:
        return str(self._section("model")["name"])

    def encoder_class(self, stream: str) -> tuple[Any, Any]:
        """The class of the feature that fills a stream, and its settings."""
        return feature_class(self.filled[stream], _where(stream))

    @property
    def teacher_dim(self) -> int:
        """Features of a teacher's frame; 0 without a teacher. They are only known from its weights."""
        return self.build_teacher().dim if self.training.teacher else 0

    def model_class(self) -> tuple[Any, Any]:
        """The model's class and its settings."""
        return decode_named(models, self._section("model"), "model")

    def strategy_class(self) -> tuple[Any, Any]:
        """The strategy's class and its settings."""
        return decode_named(strategies, {"name": DEFAULT, **self.training.strategy}, "training.strategy")

    def build_encoder(self, stream: str = "speech") -> Feature:
        """The feature that fills a stream, with its weights: from the bundle to start from, or from its folder."""
        heard = rebuild(self.origin).heard if self.origin else {}
        return heard[stream] if stream in heard else build_feature(self.filled[stream], _where(stream))

    def build_encoders(self) -> dict[str, Feature]:
        """Those of all streams that the model takes."""
        return {stream: self.build_encoder(stream) for stream in self.taken}

    def build_teacher(self) -> Feature:
        """The teacher with its weights."""
        return build_feature(self.training.teacher, "training.teacher")

    def build_model(self, specs: Mapping[str, FeatureSpec], emotions: Sequence[str]) -> EmotionModel:
        """The model for these streams, with the weights that the generator's state, or the bundle to start from, gives."""
        kind, config = self.model_class()
        model: EmotionModel = kind.build(config, specs, len(emotions))
        if self.origin:
            start = rebuild(self.origin)
            weights, temperature = start.models[0].state_dict(), float(start.temperature)
            load_matching_weights(model, weights, emotions, self.origin.emotions, temperature=temperature)
        return model

    def resolved(self, repeat: int = 0) -> dict[str, Any]:
        """What decides one training, every default written out; what can be chosen afterwards is not part of it."""
        settings = encode(self)
        for name in ("temperature", "about", "probes", "repeats"):
            del settings[name]
        settings["seed"] = self.seed + repeat
        settings["training"]["strategy"] = {
            "name": DEFAULT,
            **self.training.strategy,
            **encode(self.strategy_class()[1]),
        }
        if self.branches:
            settings["branch_ids"] = {branch: _weights_id(branch, run) for branch, run in self.branch_runs().items()}
        if self.origin:
            settings["start_id"] = self.origin.id
        else:
            whole = {one: {**section, **encode(self.encoder_class(one)[1])} for one, section in self.filled.items()}
            settings["encoder"] = whole.pop("speech", {})
            settings["streams"] = whole
            settings["model"] = {**self.model, **encode(self.model_class()[1])}
        return settings


def _settings_of(branch: str, run: Run) -> dict[str, Any]:
    """The model's settings of a run that a fusion stands over."""
    _check_run(branch, run)
    settings = dict(run.config["model"])
    if models.resolve(settings.pop("name"))[0] is not models[BRANCHES[branch]]:
        raise BadConfig(f"branches.{branch}: {run.folder} trained another model: expected {BRANCHES[branch]}")
    return settings


def _check_run(branch: str, run: Run) -> None:
    if not run.config_path.is_file() or not run.epochs:
        raise BadConfig(f"branches.{branch}: {run.folder} holds no run: give a folder that affekt train filled")


def _weights_id(branch: str, run: Run) -> str:
    """Which weights a run gives to a fusion: by their contents, wherever they lie."""
    _check_run(branch, run)
    path = run.weights_path(select_epoch(run, run.config["selection"]))
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def _where(stream: str) -> str:
    return "encoder" if stream == "speech" else f"streams.{stream}"


def feature_class(section: Mapping[str, Any], where: str) -> tuple[Any, Any]:
    """A feature's class and its settings, from a section that may name a folder too."""
    return decode_named(features, {key: value for key, value in section.items() if key != "folder"}, where)


def build_feature(section: Mapping[str, Any], where: str) -> Feature:
    """A feature with its weights, from its folder: an absolute one, or one below AFFEKT_MODELS."""
    kind, config = feature_class(section, where)
    feature: Feature = kind.from_folder(_folder(section, where), config)
    return feature


def _folder(section: Mapping[str, Any], where: str) -> Path | None:
    if "folder" not in section:
        return None
    folder = Path(str(section["folder"])).expanduser()
    if folder.is_absolute():
        return folder
    root = os.environ.get("AFFEKT_MODELS")
    if not root:
        raise BadConfig(f"{where} {str(folder)!r} is looked for in AFFEKT_MODELS, which is not set: name its folder")
    return Path(root) / folder


def recipe_of(run: Run) -> Recipe:
    """The recipe of a training, out of its run folder."""
    settings = {name: value for name, value in run.config.items() if name not in ("start_id", "branch_ids")}
    return decode(Recipe, settings, f"{run.folder}, config.toml")


def load_recipe(source: str, assignments: list[str] | None = None) -> Recipe:
    """A recipe from a TOML file or by the name of a shipped one, with `key=value` assignments applied."""
    path = RECIPES / f"{source}.toml" if source in shipped_recipes() else Path(source)
    if not path.is_file():
        known = shipped_recipes()
        raise BadConfig(f"there is no recipe {source!r}{did_you_mean(source, known)} (shipped: {', '.join(known)})")
    return decode(Recipe, override(read_toml(path), assignments or []), str(path))


def shipped_recipes() -> list[str]:
    return sorted(path.stem for path in RECIPES.glob("*.toml"))
