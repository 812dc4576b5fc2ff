"""Read audio files and arrays as mono 16 kHz samples."""
