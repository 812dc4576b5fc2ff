"""The functions that the commands call: train, evaluate, predict, fine-tune, make a bundle, migrate."""
