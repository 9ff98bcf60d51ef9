"""The page of a run that is going on, served over HTTP and kept up to date by server-sent events."""

from pipeline.live.feed import Feed
from pipeline.live.guard import Bind, parse_bind
from pipeline.live.server import LivePage

__all__ = ["Bind", "Feed", "LivePage", "parse_bind"]
