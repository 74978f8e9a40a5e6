"""Tests against the real things; not part of `python -m unittest`. As root on a Debian machine:

python -m unittest discover -s test/integration -t . -p "real_*.py"
"""
