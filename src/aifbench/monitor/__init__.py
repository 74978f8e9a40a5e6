"""Watching machines and services while they work."""
