"""A second vendor, written from its documentation alone and on other foundations than the sandbox.

What both agree on is the vendor's; where only one of them lets us pass, one of them is wrong.
"""

from tests.integration.vendor_double.http_server import Exchange, Request
from tests.integration.vendor_double.script import (
    GATEWAY_PAGE,
    LOST_CREATES,
    RUNNING_STATUSES,
    JobScript,
    ScriptedCreate,
)
from tests.integration.vendor_double.vendor import KEY, VendorDouble, VendorGeneration
from tests.integration.vendor_double.videos import make_video
from tests.integration.vendor_double.workspace import (
    IMAGE,
    CommandResult,
    Workspace,
    kill_when,
    vendor_and_workspace,
    wait_for_exit,
    wait_until,
)

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
    "kill_when",
    "make_video",
    "vendor_and_workspace",
    "wait_for_exit",
    "wait_until",
]
