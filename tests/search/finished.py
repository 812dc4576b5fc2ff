"""Generated folders of architecture searches: random predictions, no training, and a CREMA-D whose audio files are empty."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from affekt.corpora.source import Source
from affekt.protocols import Split, utterance_key
from affekt.runs.folder import Run
from affekt.search.folder import Round, Search

EMOTIONS = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
OPERATIONS = (
    *("none", "max_pool_3x3", "avg_pool_3x3", "skip_connect"),
    *("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"),
)
STAGES = ("search", "found", "spectrogram", "halving", "recurrent", "fusion")  # each includes the ones before it
FOLDS = {"1": range(1001, 1013), "2": range(1013, 1025)}  # the actors in the test set
CONFIG = {
    "corpora": ["cremad"],
    "labels": "cremad-6",
    "protocol": {"name": "speaker-folds", "k": 2},
    "selection": "validation",
}
GENOTYPE = {
    "normal": [
        *(["sep_conv_3x3", 0], ["sep_conv_5x5", 1]),
        *(["dil_conv_3x3", 1], ["skip_connect", 0]),
        *(["sep_conv_3x3", 2], ["avg_pool_3x3", 0]),
        *(["dil_conv_5x5", 4], ["sep_conv_3x3", 1]),
    ],
    "reduce": [
        *(["max_pool_3x3", 0], ["max_pool_3x3", 1]),
        *(["skip_connect", 2], ["max_pool_3x3", 1]),
        *(["dil_conv_5x5", 3], ["skip_connect", 2]),
        *(["sep_conv_5x5", 0], ["skip_connect", 4]),
    ],
}
RECIPE = {
    "node_2": {"op": "linear", "input": ["h_prev_0", "h_prev_1", "x"]},
    "node_3": {"op": "activation_tanh", "input": ["node_2"]},
    "node_11": {"op": "linear", "input": ["node_3", "h_prev_1"]},
    "node_13": {"op": "linear", "input": ["h_prev_0", "node_3"]},
    "h_new_0": {"op": "activation_leaky_relu", "input": ["node_13"]},
    "h_new_1": {"op": "activation_tanh", "input": ["node_11"]},
}
LSTM = {
    "i": {"op": "linear", "input": ["x", "h_prev_0"]},
    "i_act": {"op": "activation_tanh", "input": ["i"]},
    "j": {"op": "linear", "input": ["x", "h_prev_0"]},
    "j_act": {"op": "activation_sigm", "input": ["j"]},
    "f": {"op": "linear", "input": ["x", "h_prev_0"]},
    "f_act": {"op": "activation_sigm", "input": ["f"]},
    "o": {"op": "linear", "input": ["x", "h_prev_0"]},
    "o_act": {"op": "activation_sigm", "input": ["o"]},
    "h_new_1_part1": {"op": "elementwise_prod", "input": ["f_act", "h_prev_1"]},
    "h_new_1_part2": {"op": "elementwise_prod", "input": ["i_act", "j_act"]},
    "h_new_1": {"op": "elementwise_sum", "input": ["h_new_1_part1", "h_new_1_part2"]},
    "h_new_1_act": {"op": "activation_tanh", "input": ["h_new_1"]},
    "h_new_0": {"op": "elementwise_prod", "input": ["h_new_1_act", "o_act"]},
}
GRU = {
    "r": {"op": "linear", "input": ["x", "h_prev_0"]},
    "r_act": {"op": "activation_sigm", "input": ["r"]},
    "z": {"op": "linear", "input": ["x", "h_prev_0"]},
    "z_act": {"op": "activation_sigm", "input": ["z"]},
    "rh": {"op": "elementwise_prod", "input": ["r_act", "h_prev_0"]},
    "h_tilde": {"op": "linear", "input": ["x", "rh"]},
    "h_tilde_act": {"op": "activation_tanh", "input": ["h_tilde"]},
    "h_new_0": {"op": "blend", "input": ["z_act", "h_prev_0", "h_tilde_act"]},
}


def make_corpus(data: Path) -> Path:
    """Write a corpus of 24 actors in CREMA-D's layout, for AFFEKT_DATA set to `data`."""
    folder = data / "cremad" / "audio"
    folder.mkdir(parents=True)
    for actor in range(1001, 1025):
        for emotion in EMOTIONS:
            for sentence in ("DFA", "ITS", "TSI"):
                (folder / f"{actor}_{sentence}_{emotion}_XX.wav").touch()
    return data


def make_split(fold: str = "1") -> Split:
    utterances = Source("cremad").read()
    others = [actor for actor in range(1001, 1025) if actor not in FOLDS[fold]]
    actors = {"train": others[:8], "validation": others[8:], "test": list(FOLDS[fold])}
    subsets = {
        subset: [utterance_key(utterance) for utterance in utterances if int(utterance.id[:4]) in chosen]
        for subset, chosen in actors.items()
    }
    return Split.of(utterances, subsets, "folds of speakers", fold=f"{fold} of 2", seed=0)


class SearchMaker:
    """Writes the folder of one search, stage after stage."""

    def __init__(self, folder: Path, *, seed=0, fold="1", epochs=4, alphas_on="validation", collapsed=False, gain=0.4):
        self.search, self.seed, self.epochs = Search(folder), seed, epochs
        self.split, self.collapsed, self.gain = make_split(fold), collapsed, gain
        self.training = {"epochs": epochs, "patience": 0}
        self.alphas_on = alphas_on
        self.generator = np.random.default_rng([seed, int(fold)])
        folder.mkdir(parents=True, exist_ok=True)
        text = f'name = "emotionnas-cremad"\nseed = {seed}\nfolds = [{fold}]\n'
        (folder / "search.toml").write_text(text, encoding="utf-8")

    def run(self, *path, model, skill, epochs=None, log_entry=None, weights=(), seconds=2.0, split=None):
        """Write a run with random predictions; `skill` is added to the logit of the true label."""
        split = split or self.split
        run = self.search.run(*path)
        config = {**CONFIG, "name": "/".join(path), "seed": self.seed, "model": model, "training": self.training}
        if split is not self.split:
            config["selection"] = "last"  # there is no validation subset
        elif path == ("spectrogram", "search"):
            config["training"] = {**self.training, "strategy": {"name": "darts", "learn_alphas_on": self.alphas_on}}
        labels = {utterance: EMOTIONS.index(utterance[-6:-3]) for ids in split.subsets.values() for utterance in ids}
        emotions = ("angry", "disgust", "fear", "happy", "neutral", "sad")
        run = Run.start(self.search.folder.joinpath(*path), config, split, emotions, labels)
        for epoch in range(1, (epochs or self.epochs) + 1):
            predictions = {
                subset: softmax(self.generator.normal(size=(len(ids), 6)) + skill * np.eye(6)[run.labels(subset)])
                for subset, ids in split.subsets.items()
                if subset != "train"
            }
            extra = log_entry(epoch) if log_entry else {}
            run.record(epoch, predictions, {"loss": 1.0, "seconds": seconds, **extra})
        if weights:
            save_file({name: np.zeros(shape, np.float32) for name, shape in weights}, run.weights_path(1))
        return run

    def log_entry(self, epoch):
        """Return the supernet's log entry: alphas that drift apart, towards skip_connect in a collapse."""
        drift = np.random.default_rng([self.seed, 7]).normal(size=(2, 14, 8))
        drift[:, :, 0] -= 1.0
        if self.collapsed:
            drift[0, :, 3] += 2.5
        values = drift * 1.5 * epoch / self.epochs
        genotype = self.genotype
        skips = sum(name == "skip_connect" for name, _ in genotype["normal"])
        return {
            "alpha_loss": 1.2,
            "alphas": {kind: np.round(values[n], 6).tolist() for n, kind in enumerate(("normal", "reduce"))},
            "genotype": genotype,
            "skips": skips,
            "collapsed": skips > 4,
        }

    @property
    def genotype(self):
        if not self.collapsed:
            return GENOTYPE
        return {**GENOTYPE, "normal": [["skip_connect", source] for _, source in GENOTYPE["normal"]]}

    def up_to(self, stage):
        for name in STAGES[: STAGES.index(stage) + 1]:
            getattr(self, f"make_{name}")()
        return self.search

    def make_search(self, epochs=None):
        model = {"name": "emotionnas-spectrogram", "cells": 3, "channels": 6}
        weights = [("stem.0.weight", (18, 1, 3, 3)), ("stem.1.running_mean", (18,)), ("architecture.normal", (14, 8))]
        weights += [("stem.1.num_batches_tracked", ()), ("input.mean", (140,)), ("input.deviation", (140,))]
        self.run(
            "spectrogram",
            "search",
            model=model,
            skill=1.2,
            epochs=epochs,
            log_entry=self.log_entry,
            weights=weights,
            seconds=20.0,
        )

    def derived(self, *path, genotype, skill, **options):
        model = {"name": "emotionnas-spectrogram", "cells": 3, "channels": 6, "genotype": genotype}
        self.run(*path, model=model, skill=skill, weights=[("a.weight", (len(path[-1]), 100))], **options)

    def make_found(self):
        self.search.genotype_path.write_text(json.dumps(self.genotype), encoding="utf-8")
        self.derived("spectrogram", "found", genotype=self.genotype, skill=1.2 + self.gain)

    def make_spectrogram(self):
        for number in range(1, 4):
            self.derived(
                "spectrogram", "random", f"{number:02}", genotype=GENOTYPE, skill=1.0 + 0.1 * number, seconds=6.0
            )
        self.derived("spectrogram", "known", "darts-v2", genotype="darts-v2", skill=1.3)

    def recurrent(self, *path, recipe, skill, epochs=None):
        model = {"name": "emotionnas-recurrent", "layers": 1, "hidden": 64, "recipe": recipe}
        self.run(*path, model=model, skill=skill, epochs=epochs, weights=[("layers.0.weight", (64, 40))])

    def make_halving(self):
        num_epochs = {"1b2c3d4e": 1, "5f6a7b8c": 1, "a0b1c2d3": 2, "e4f5a6b7": self.epochs}
        for number, (name, epochs) in enumerate(num_epochs.items()):
            self.recurrent("recurrent", "candidates", name, recipe=RECIPE, skill=1.2 + 0.2 * number, epochs=epochs)
        names = list(num_epochs)
        losses = {name: 1.7 - 0.1 * number for number, name in enumerate(names)}
        rounds = [
            Round(1, losses, tuple(names[:1:-1])),
            Round(2, {name: losses[name] - 0.2 for name in names[2:]}, (names[3],)),
            Round(self.epochs, {names[3]: 1.05}, (names[3],)),
        ]
        self.search.write_rounds(rounds)
        self.search.recurrent_recipe_path.write_text(json.dumps({"name": names[3], "recipe": RECIPE}), encoding="utf-8")

    def make_recurrent(self):
        for number in (1, 2):
            self.recurrent("recurrent", "random", f"{number:02}", recipe=LSTM, skill=1.4)
        for name, skill in (("lstm", 1.6), ("gru", 1.7)):
            self.recurrent("recurrent", "known", name, recipe=name, skill=skill)

    def make_fusion(self):
        subsets = {
            "train": (*self.split.subsets["train"], *self.split.subsets["validation"]),
            "test": self.split.subsets["test"],
        }
        split = Split(self.split.name, subsets, True, fold=self.split.fold, seed=0)
        self.run(
            "fusion",
            model={"name": "emotionnas-fusion"},
            skill=2.3,
            weights=[("perceptron.0.weight", (8, 12))],
            split=split,
        )


def softmax(logits):
    exponentials = np.exp(logits)
    return (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)


def make_searches(folder: Path, *, seeds=2, folds=("1",), stage="fusion", **options) -> Path:
    """Write a search for each fold and seed below one folder."""
    for fold in folds:
        for seed in range(seeds):
            SearchMaker(folder / f"fold-{fold}" / f"seed-{seed}", seed=seed, fold=fold, **options).up_to(stage)
    return folder
