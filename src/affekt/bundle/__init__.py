"""A trained model as a folder: its format, its network and its ONNX export."""
