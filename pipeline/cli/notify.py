"""`--notify URL`: a message at the end of a run, by apprise (extra `notify`). A failing one fails nothing."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pipeline.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


def check_notify_urls(urls: Sequence[str]) -> None:
    """Raise `UsageError` when the extra is missing or a URL names no service, without showing the URL.

    Notification URLs carry tokens: what is said of them is their scheme.
    """
    if not urls:
        return
    try:
        import apprise
    except ModuleNotFoundError as error:
        raise UsageError("--notify needs apprise: pip install 'veobatch[notify]'") from error
    logging.getLogger("apprise").setLevel(logging.CRITICAL)
    for url in urls:
        if not apprise.Apprise().add(url):
            raise UsageError(f"--notify: apprise knows no such service: {_scheme(url)}://...")


def send_to_urls(urls: Sequence[str], title: str, body: str, code: int) -> list[str]:
    """Send the message to every URL; return one line for each that did not take it. Blocks.

    `code` is the run's exit code: services show success, failure and warning in their own ways.
    """
    import apprise

    kinds = {0: apprise.NotifyType.SUCCESS, 1: apprise.NotifyType.FAILURE}
    kind = kinds.get(code, apprise.NotifyType.WARNING)

    logging.getLogger("apprise").setLevel(logging.CRITICAL)
    errors = []
    for url in urls:
        service = apprise.Apprise()
        if not (service.add(url) and service.notify(body=body, title=title, notify_type=kind)):
            errors.append(f"--notify {_scheme(url)}://...: the message was not delivered")
    return errors


def _scheme(url: str) -> str:
    return url.partition("://")[0][:20]
