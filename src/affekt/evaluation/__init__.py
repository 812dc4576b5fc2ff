"""Metrics, scores with intervals, paired comparisons, calibration and linear probes, all computed from arrays."""
