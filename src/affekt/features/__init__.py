"""The registry of features. To add a feature, add a module to this package and a line here."""

from affekt.registry import Registry

features = Registry(
    "feature",
    {
        "log-mel": "affekt.features.whisper:LogMelFrames",
        "mfcc": "affekt.features.spectral:MFCC",
        "spectrogram": "affekt.features.spectral:Spectrogram",
        "whisper": "affekt.features.whisper:WhisperStates",
        "whisper-30s": "affekt.features.speech:WhisperThirtySeconds",
        "hubert": "affekt.features.speech:HuBERT",
        "wav2vec2": "affekt.features.speech:Wav2Vec2",
        "wavlm": "affekt.features.speech:WavLM",
        "wav2vec": "affekt.features.wav2vec:Wav2Vec",
        "ecapa": "affekt.features.speaker:ECAPA",
        "bert": "affekt.features.text:BERT",
        "roberta": "affekt.features.text:RoBERTa",
        "minilm": "affekt.features.text:MiniLM",
        "glove": "affekt.features.glove:GloVe",
    },
)
