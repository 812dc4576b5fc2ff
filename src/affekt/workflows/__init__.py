"""The functions behind the commands, one verb per file: train, evaluate, predict, fine-tune, make a bundle."""
