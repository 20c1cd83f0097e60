"""Train and evaluate the runs of a suite with `fit` and `test`, on this machine or on Slurm."""
