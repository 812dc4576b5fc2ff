"""A recipe: all settings that determine training, as frozen dataclasses that are read from TOML.

A recipe is data: it checks its own values, but opens no file and builds nothing. `affekt.training.plan.resolve` does that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from affekt.config import decode
from affekt.corpora.source import Source
from affekt.errors import BadConfig
from affekt.features.augment import Augmentation
from affekt.labels import LabelSet, label_set
from affekt.published import Assumption, PublishedResult
from affekt.recipe_files import RECIPES, load_settings, shipped_files
from affekt.runs.folder import Run
from affekt.runs.selection import SELECTION_SUBSET, Rule, StoppingMetric
from affekt.training.detection import DetectorConfig
from affekt.utterance import Utterance

RESOLVED_IDS = ("start_id", "weights_ids")
"""Keys of a run's config.toml that are not keys of a recipe. They identify the weights that training started from."""


@dataclass(frozen=True)
class Probe:
    """A linear probe that the model card compares the model with."""

    name: str
    strength: float
    """C of scikit-learn's logistic regression, the inverse of the L2 penalty's weight: a smaller value regularizes more."""
    blocks: tuple[int, ...] = ()
    """The blocks of the speech encoder whose hidden states are the input; if empty, the input is log-mel frames."""


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained."""

    epochs: int
    batch_size: int = 32
    subset: Literal["train", "validation"] = "train"
    """The subset to train on. "validation" is for a model on top of trained networks, whose outputs on their own training
    subset are overfitted; no subset is then left to select an epoch with."""
    tune: Literal["head", "all"] = "head"
    """With "head", the model is trained on the features of a frozen encoder; with "all", the encoder is trained too."""
    patience: int = 0
    """Epochs without a better score on the validation subset after which training stops; 0 for never."""
    patience_metric: StoppingMetric = "UA"
    """The score that must improve: "UA", "WF1", or "loss", the cross-entropy, which must fall."""
    score_train: bool = False
    """If true, the training subset is predicted after every epoch, without augmentation, and its loss, UA, WA and WF1 are
    logged."""
    sampling: Literal["plain", "balanced", "corpora"] = "plain"
    """With "balanced", every emotion is sampled equally often in an epoch; with "corpora", every corpus in proportion to the
    square root of its number of utterances, so that a large corpus does not outweigh a small one."""
    votes: float = 0.0
    """Weight of the crowd's votes in the soft target, where the corpus has them; the label has the rest. In [0, 1]."""
    teacher: Mapping[str, Any] = field(default_factory=dict)
    """An encoder, usually a larger one, for distillation: the fine-tuned encoder learns to predict the frames that the
    teacher computes from the unaugmented speech. Settings as in [features.speech]. It is used only during training."""
    device: str = "cpu"
    """A device's name in torch, such as "cpu" or "cuda". With "cuda" under torchrun, each process uses another GPU."""
    threads: int = 0
    """Threads of torch; 0 for torch's default. Results are bit-identical only with the same number."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    strategy: Mapping[str, Any] = field(default_factory=dict)
    """The `name` of the training strategy, "supervised" if it is left out, and that strategy's settings."""

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
                f"patience = {self.patience}, votes = {self.votes}: expected patience >= 0 and votes in [0, 1]"
            )


@dataclass(frozen=True)
class Recipe:
    """All settings of training: data, features, model, and how it is trained."""

    name: str
    labels: str
    """A label set of `affekt.labels`, or "all" for the emotions that occur in the corpora."""
    corpora: tuple[str | Source, ...]
    """Sources: "cremad", "folder:PATH", or the settings of a source as a TOML table."""
    protocol: Mapping[str, Any]
    """The `name` of a protocol and its settings."""
    training: TrainingConfig
    features: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Stream of the model ("speech", "text", "speaker", "spectrogram") -> the `name` of the feature that provides it, the
    `folder` of its weights, and its settings. A stream is not computed if the model, with its settings, does not use it."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """The `name` of a model and its settings."""
    weights_from: Mapping[str, str] = field(default_factory=dict)
    """Submodule of the model -> a run folder. The submodule gets the model settings of that run, and the weights of the
    epoch that the run's own selection rule selects."""
    start: str = ""
    """A bundle to start from, instead of `features` and `model`: its features, model settings and weights are used."""
    seed: int = 0
    split_seed: int = 0
    """Seed of the protocol's random choices; `seed` does not change the split."""
    folds: tuple[int, ...] = ()
    """The folds of the protocol to train, counted from 1; all if empty."""
    repeats: int = 1
    """Number of training runs, with the seeds `seed`, `seed` + 1, ...; a bundle averages their probabilities."""
    selection: Rule = "last"
    """The rule that selects the epoch."""
    temperature: float | Literal["fitted"] = 1.0
    """Divides a bundle's logits; "fitted" fits it on the validation subset."""
    about: str = ""
    """A sentence for the model card."""
    probes: tuple[Probe, ...] = ()
    detector: DetectorConfig | None = None
    """The speech detector of a bundle; None for none."""
    published: PublishedResult | None = None
    """The scores of the row of a paper's table that the recipe reproduces. They do not influence a run."""
    assumptions: tuple[Assumption, ...] = ()
    """Choices where the paper is silent or can be read differently. They do not influence a run."""

    renamed: ClassVar[Mapping[str, str]] = {
        "encoder": "features.speech",
        "streams": "features",
        "branches": "weights_from",
    }

    def __post_init__(self) -> None:
        if self.labels != "all":
            label_set(self.labels)
        if bool(self.start) == bool(self.features or self.model):
            raise BadConfig("a recipe needs either [features] and [model], or start = BUNDLE, which has both")
        if not self.corpora:
            raise BadConfig("corpora is empty: name at least one corpus")
        _ = self.sources  # raises for an unknown corpus
        if self.repeats < 1 or self.seed < 0:
            raise BadConfig(
                f"repeats = {self.repeats}, seed = {self.seed}: expected at least 1 run, and a seed of 0 or more"
            )
        if self.training.subset == "validation":
            for setting in self.validation_settings:
                raise BadConfig(f"{setting} needs a validation subset, and training.subset = 'validation' trains on it")

    @property
    def validation_settings(self) -> list[str]:
        """The settings that need a validation subset which is not trained on."""
        settings = {
            f"selection = {self.selection!r}": SELECTION_SUBSET.get(self.selection) == "validation",
            "training.patience": self.training.patience > 0,
            "temperature = 'fitted'": self.temperature == "fitted",
        }
        return [setting for setting, needs_validation in settings.items() if needs_validation]

    @property
    def sources(self) -> tuple[Source, ...]:
        """The corpora as sources."""
        return tuple(map(Source.of, self.corpora))

    def label_set(self, utterances: Sequence[Utterance]) -> LabelSet:
        """Return the recipe's label set; if `labels` is "all", all emotions of the utterances."""
        return LabelSet.all_of(utterances, "all") if self.labels == "all" else label_set(self.labels)


def recipe_of(run: Run) -> Recipe:
    """Read the recipe of a run from its folder. Raises `BadConfig`."""
    settings = {name: value for name, value in run.config.items() if name not in RESOLVED_IDS}
    return decode(Recipe, settings, f"{run.folder}, config.toml")


def load_recipe(source: str, assignments: list[str] | None = None) -> Recipe:
    """Load a recipe from a TOML file or by the name of a shipped one, and apply `key=value` assignments.

    With other settings of the model than in the file, the published figures of the recipe are left out.

    Raises:
        BadConfig: There is no such recipe, or it has unknown keys or invalid values.
    """
    recipe = load_settings(Recipe, "recipe", RECIPES, source, assignments)
    if recipe.published and recipe.model != load_settings(Recipe, "recipe", RECIPES, source).model:
        return replace(recipe, published=None)
    return recipe


def shipped_recipes() -> list[str]:
    """Return the names of the recipes inside the package."""
    return list(shipped_files(RECIPES))
