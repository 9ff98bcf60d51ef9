"""Rows in doubt: what the vendor's request log says of them, and the pool that keeps asking."""
