"""Recognition: from audio to rows of results, with onnxruntime and without torch."""
