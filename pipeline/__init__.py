"""veobatch: a manifest of (image, prompt) pairs in, finished MP4s and a results CSV out."""

__version__ = "0.1.0"
