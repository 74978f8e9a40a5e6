"""AI Factory Bench: deploy the services of an AI factory, load them honestly, explain what they sustain."""

__version__ = "0.1.0"
