"""Generating load: Arrivals say when, a Workload says what, the Engine issues and records, a Fleet scales it.

Nothing in this package names a service.
"""
