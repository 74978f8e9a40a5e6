"""Against other implementations, from the `dev` extra; not part of `python -m unittest`:

python -m unittest discover -s test/oracle -t . -p "oracle_*.py"
"""
