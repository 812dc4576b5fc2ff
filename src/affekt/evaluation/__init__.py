"""Metrics, scores with intervals, paired comparisons, calibration and linear probes, from arrays alone."""
