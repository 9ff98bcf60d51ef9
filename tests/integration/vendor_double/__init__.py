"""A second vendor, written from its documentation alone and on other foundations than the sandbox.

What both agree on is the vendor's; where only one of them lets us pass, one of them is wrong.
"""

from tests.integration.vendor_double.command import (
    IMAGE,
    CommandResult,
    Workspace,
    vendor_and_workspace,
    wait_for_exit,
    wait_until,
)
from tests.integration.vendor_double.films import make_video
from tests.integration.vendor_double.script import (
    GATEWAY_PAGE,
    LOST_CREATES,
    RUNNING_STATUSES,
    JobScript,
    ScriptedCreate,
)
from tests.integration.vendor_double.vendor import KEY, VendorDouble, VendorGeneration
from tests.integration.vendor_double.wire import Exchange, Request

__all__ = [
    "GATEWAY_PAGE",
    "IMAGE",
    "KEY",
    "LOST_CREATES",
    "RUNNING_STATUSES",
    "CommandResult",
    "Exchange",
    "JobScript",
    "Request",
    "ScriptedCreate",
    "VendorDouble",
    "VendorGeneration",
    "Workspace",
    "make_video",
    "vendor_and_workspace",
    "wait_for_exit",
    "wait_until",
]
