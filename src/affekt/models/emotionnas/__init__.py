"""The networks of EmotionNAS (Sun et al., "EmotionNAS: Two-stream Architecture Search for Speech Emotion Recognition",
arXiv 2203.13617 v1): a convolutional branch for spectrograms, a recurrent branch for wav2vec features, and the fusion of
their predictions."""
