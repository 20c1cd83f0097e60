"""Doing the runs of a suite: it calls `fit` and `test` as a person would, on this machine or on Slurm."""
