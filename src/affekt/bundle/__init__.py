"""Bundles: the folder format of a trained model, its network in torch, and the ONNX export."""
