"""The parts of the `dev-slurm` command. Standard library only; root only; one cluster per machine."""
