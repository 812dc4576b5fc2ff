"""What the commands call, one verb per file: train, evaluate, predict, fine-tune, make a bundle."""
