"""The page of a run that is going on, served over HTTP and kept up to date by server-sent events."""

from pipeline.results.live.access import BindAddress, parse_bind
from pipeline.results.live.change_feed import ChangeFeed
from pipeline.results.live.reviews import Reviews
from pipeline.results.live.server import LivePage

__all__ = ["BindAddress", "ChangeFeed", "LivePage", "Reviews", "parse_bind"]
