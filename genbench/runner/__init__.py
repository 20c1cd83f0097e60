"""Trains and evaluates the runs of a suite with `fit` and `test`, on this machine or on Slurm."""
