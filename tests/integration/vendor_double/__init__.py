"""A second vendor, written from its documentation alone and on other foundations than the sandbox.

What both agree on is the vendor's; where only one of them lets us pass, one of them is wrong.
"""

from tests.integration.vendor_double.command import IMAGE, Desk, Ended, at_work, ended, until
from tests.integration.vendor_double.films import film
from tests.integration.vendor_double.script import LOST, PAGE, RUNNING, Create, Script
from tests.integration.vendor_double.vendor import KEY, Double, Made
from tests.integration.vendor_double.wire import Exchange, Request

__all__ = [
    "IMAGE",
    "KEY",
    "LOST",
    "PAGE",
    "RUNNING",
    "Create",
    "Desk",
    "Double",
    "Ended",
    "Exchange",
    "Made",
    "Request",
    "Script",
    "at_work",
    "ended",
    "film",
    "until",
]
