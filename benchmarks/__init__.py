"""Measurements of veobatch beside what people use today. `python -m benchmarks` makes all of them."""
