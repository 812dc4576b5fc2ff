"""Trainings on disk, finished or running."""
