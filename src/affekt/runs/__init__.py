"""Training runs on disk, finished or not: their folders, their groups, and the selection of an epoch."""
