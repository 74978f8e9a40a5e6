"""The deployable services: one abstract SlurmServer, one module per service."""
