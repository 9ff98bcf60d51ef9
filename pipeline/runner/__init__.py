"""Assembling a run and carrying it out, for the command and for Python. Knows no terminal and no signals."""
