"""Recognition: from audio to rows, with onnxruntime and without torch."""
