"""A search recipe that takes seconds: generated tones, MFCC instead of wav2vec, networks of a few channels."""

SEARCH = """
name = "small-search"
labels = "six"
corpora = ["cremad"]
seed = 1

[protocol]
name = "held-out-speakers"
test = ["cremad/1005", "cremad/1010"]
validation = ["cremad/1002"]

[features.speech]
name = "mfcc"
coefficients = 8

[features.spectrogram]
name = "spectrogram"
bins = 16
hop = 0.02
seconds = 0.64
frames = 16
pool = "adaptive"

[spectrogram]
model = {channels = 2, nodes = 2, frames = 16, cells = 2}
derived = {channels = 4}
random = 1
known = []

[spectrogram.search]
epochs = 2
batch_size = 16
threads = 1
strategy = {alpha_rate = 0.01}

[spectrogram.training]
epochs = 2
batch_size = 16
threads = 1
strategy = {learning_rate = 0.01}

[recurrent]
model = {layers = 1, hidden = 4, frames = 8, stride = 4, masked = true, input_norm = "standard"}
candidates = ["id1010120"]
random_candidates = 2
halving = {first = 1, factor = 2}
random = 1
known = ["gru"]

[recurrent.training]
epochs = 3
batch_size = 16
threads = 1
strategy = {learning_rate = 0.01, clip = 1.0}

[fusion.training]
epochs = 3
batch_size = 16
threads = 1
strategy = {learning_rate = 0.01}
"""
