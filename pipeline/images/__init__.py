"""The images that jobs start from: reachable, an image, large enough, shaped as asked.

`head` reads type and size from an image's first bytes, `addresses` keeps requests away from private
networks, `check` fetches the bytes and words the message. Never uses the key: images are on other hosts.
"""

from pipeline.images.check import ImageFindings, check_images

__all__ = ["ImageFindings", "check_images"]
