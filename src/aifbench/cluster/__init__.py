"""Getting things to run: one Scheduler protocol, implemented for Slurm and for plain local processes."""
