"""affekt: speech emotion recognition, from recording to probabilities.

>>> from affekt import Recognizer
>>> Recognizer.load()("hello.wav").emotion
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from affekt.bundle.folder import Bundle as Bundle
    from affekt.corpora.source import Source as Source
    from affekt.errors import AffektError as AffektError
    from affekt.errors import BadAudio as BadAudio
    from affekt.errors import BadBundle as BadBundle
    from affekt.errors import BadConfig as BadConfig
    from affekt.errors import BadCorpus as BadCorpus
    from affekt.errors import BadOutput as BadOutput
    from affekt.errors import BadTranscript as BadTranscript
    from affekt.errors import Diverged as Diverged
    from affekt.errors import MissingExtra as MissingExtra
    from affekt.errors import UnknownName as UnknownName
    from affekt.evaluation.scores import Scores as Scores
    from affekt.features.extract import extract as extract
    from affekt.inference.profile import Profile as Profile
    from affekt.inference.recognizer import Recognizer as Recognizer
    from affekt.inference.row import Row as Row
    from affekt.interval import Interval as Interval
    from affekt.listing import list_corpora as list_corpora
    from affekt.listing import list_features as list_features
    from affekt.listing import list_models as list_models
    from affekt.listing import list_protocols as list_protocols
    from affekt.protocols.audit import audit as audit
    from affekt.runs.folder import Run as Run
    from affekt.search.search import search as search_architecture
    from affekt.timeline.exports import export_timeline as export_timeline
    from affekt.timeline.exports import read_timeline as read_timeline
    from affekt.timeline.given_intervals import GivenIntervals as GivenIntervals
    from affekt.timeline.hysteresis import Hysteresis as Hysteresis
    from affekt.timeline.plot import save_plot as save_plot
    from affekt.timeline.speech_segments import SpeechSegments as SpeechSegments
    from affekt.timeline.timeline import Timeline as Timeline
    from affekt.timeline.transcripts import read_intervals as read_intervals
    from affekt.timeline.transcripts import read_rttm as read_rttm
    from affekt.timeline.windows import FixedWindows as FixedWindows
    from affekt.training.recipe import load_recipe as load_recipe
    from affekt.workflows.embed_files import embed_files as embed_files
    from affekt.workflows.evaluate import evaluate as evaluate
    from affekt.workflows.evaluate_across import evaluate_across as evaluate_across
    from affekt.workflows.finetune import finetuning_recipe as finetuning_recipe
    from affekt.workflows.learn_profile import learn_profile as learn_profile
    from affekt.workflows.make_bundle import make_bundle as make_bundle
    from affekt.workflows.make_timelines import make_timelines as make_timelines
    from affekt.workflows.recognize_files import recognize_files as recognize_files
    from affekt.workflows.recognize_manifest import recognize_manifest as recognize_manifest
    from affekt.workflows.train import train as train
    from affekt.workflows.trained_run import TrainedRun as TrainedRun
    from affekt.workflows.trained_run import open_run as open_run

__version__ = "0.1.0"

# Imported on first use, so that `import affekt` loads neither numpy nor onnxruntime nor torch.
_LAZY = {
    "AffektError": "affekt.errors:AffektError",
    "BadAudio": "affekt.errors:BadAudio",
    "BadBundle": "affekt.errors:BadBundle",
    "BadConfig": "affekt.errors:BadConfig",
    "BadCorpus": "affekt.errors:BadCorpus",
    "BadOutput": "affekt.errors:BadOutput",
    "BadTranscript": "affekt.errors:BadTranscript",
    "Bundle": "affekt.bundle.folder:Bundle",
    "Diverged": "affekt.errors:Diverged",
    "FixedWindows": "affekt.timeline.windows:FixedWindows",
    "GivenIntervals": "affekt.timeline.given_intervals:GivenIntervals",
    "Hysteresis": "affekt.timeline.hysteresis:Hysteresis",
    "Interval": "affekt.interval:Interval",
    "MissingExtra": "affekt.errors:MissingExtra",
    "Profile": "affekt.inference.profile:Profile",
    "Recognizer": "affekt.inference.recognizer:Recognizer",
    "Row": "affekt.inference.row:Row",
    "Run": "affekt.runs.folder:Run",
    "Scores": "affekt.evaluation.scores:Scores",
    "Source": "affekt.corpora.source:Source",
    "SpeechSegments": "affekt.timeline.speech_segments:SpeechSegments",
    "Timeline": "affekt.timeline.timeline:Timeline",
    "TrainedRun": "affekt.workflows.trained_run:TrainedRun",
    "UnknownName": "affekt.errors:UnknownName",
    "audit": "affekt.protocols.audit:audit",
    "embed_files": "affekt.workflows.embed_files:embed_files",
    "evaluate": "affekt.workflows.evaluate:evaluate",
    "evaluate_across": "affekt.workflows.evaluate_across:evaluate_across",
    "export_timeline": "affekt.timeline.exports:export_timeline",
    "extract": "affekt.features.extract:extract",
    "finetuning_recipe": "affekt.workflows.finetune:finetuning_recipe",
    "learn_profile": "affekt.workflows.learn_profile:learn_profile",
    "list_corpora": "affekt.listing:list_corpora",
    "list_features": "affekt.listing:list_features",
    "list_models": "affekt.listing:list_models",
    "list_protocols": "affekt.listing:list_protocols",
    "load_recipe": "affekt.training.recipe:load_recipe",
    "make_bundle": "affekt.workflows.make_bundle:make_bundle",
    "make_timelines": "affekt.workflows.make_timelines:make_timelines",
    "open_run": "affekt.workflows.trained_run:open_run",
    "read_intervals": "affekt.timeline.transcripts:read_intervals",
    "read_rttm": "affekt.timeline.transcripts:read_rttm",
    "read_timeline": "affekt.timeline.exports:read_timeline",
    "recognize_files": "affekt.workflows.recognize_files:recognize_files",
    "recognize_manifest": "affekt.workflows.recognize_manifest:recognize_manifest",
    "save_plot": "affekt.timeline.plot:save_plot",
    "search_architecture": "affekt.search.search:search",
    "train": "affekt.workflows.train:train",
}

__all__ = [
    "AffektError",
    "BadAudio",
    "BadBundle",
    "BadConfig",
    "BadCorpus",
    "BadOutput",
    "BadTranscript",
    "Bundle",
    "Diverged",
    "FixedWindows",
    "GivenIntervals",
    "Hysteresis",
    "Interval",
    "MissingExtra",
    "Profile",
    "Recognizer",
    "Row",
    "Run",
    "Scores",
    "Source",
    "SpeechSegments",
    "Timeline",
    "TrainedRun",
    "UnknownName",
    "__version__",
    "audit",
    "embed_files",
    "evaluate",
    "evaluate_across",
    "export_timeline",
    "extract",
    "finetuning_recipe",
    "learn_profile",
    "list_corpora",
    "list_features",
    "list_models",
    "list_protocols",
    "load_recipe",
    "make_bundle",
    "make_timelines",
    "open_run",
    "read_intervals",
    "read_rttm",
    "read_timeline",
    "recognize_files",
    "recognize_manifest",
    "save_plot",
    "search_architecture",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LAZY[name].split(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
