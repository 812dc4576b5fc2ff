"""Figures of runs, one file per figure. A figure is drawn from arrays and knows neither models nor data sets."""

KINDS = {
    "confusion": "confusion matrices, for each split and each fold",
    "curves": "learning curves with bands over seeds",
    "reliability": "reliability diagrams",
    "coverage": "accuracy over the fraction of utterances that is answered",
    "cost": "UA over the number of weights",
    "sweep": "UA over a setting that varies",
    "tsne": "t-SNE of the embeddings of test utterances",
    "pca": "PCA of the embeddings of test utterances",
    "umap": "UMAP of the embeddings of test utterances",
    "attention": "attention over one recording, with its words",
    "scales": "the fractions of a model's scales over one recording",
    "timeline": "the emotions of a recording over time, as affekt recognize --timeline exports them",
}
"""The figures that `affekt plot` draws, with what they show. `affekt.workflows.plot` has their functions."""
