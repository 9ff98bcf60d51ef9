"""S3 as AWS's own tools open it: keys, region and endpoint by botocore's chain, and forgotten uploads.

obstore reads variables only, and cannot list the uploads of another process. An instance's role is left to
it, but for those: to look for one takes seconds on a machine that is none of Amazon's.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

import anyio.to_thread
from botocore.config import Config
from botocore.configprovider import ConfiguredEndpointProvider
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import BotoCoreError, ClientError, ProfileNotFound
from botocore.session import Session

from pipeline import clocks
from pipeline.errors import UsageError
from pipeline.net.proxy import is_local_host

if TYPE_CHECKING:
    from obstore.store import S3Credential

_RECHECK: Final = timedelta(minutes=5)
"""How long obstore uses fetched keys before it asks again; botocore fetches new ones when theirs end."""


def _open_session() -> Any:
    """A session that knows what others have read of botocore's files, which takes 0.1 s each time."""
    made: Any = Session()
    made.register_component("data_loader", _data_loader())
    return made


@cache
def _data_loader() -> Any:
    return Session().get_component("data_loader")


class S3Account:
    """Whose keys open the bucket of an `s3://` URL, and where it is."""

    def __init__(self, url: str) -> None:
        """Raises `UsageError` for a profile that does not exist, or whose keys cannot be had."""
        parts = urlsplit(url)
        # As obstore reads it: `%20` stands for a space in the objects' names.
        self._bucket, self._prefix = parts.netloc, unquote(parts.path).strip("/")
        self._signs = not os.environ.get("AWS_SKIP_SIGNATURE")
        self._session: Any = _open_session()
        self._client: Any = None
        self._lock = threading.Lock()
        try:
            self._session.get_component("credential_provider").remove("iam-role")
            self.endpoint = self._configured_endpoint()
            self._region: str = self._session.get_config_variable("region") or "us-east-1"
            self._keys: Any = self._session.get_credentials() if self._signs else None
            if self._keys is not None:
                self._keys.get_frozen_credentials()
        except ProfileNotFound as error:
            found = ", ".join(sorted(self._session.available_profiles)[:20]) or "none at all"
            raise UsageError(f"--output {url}: {error}; there is {found}") from error
        except (BotoCoreError, ClientError) as error:
            # Without `from`: the cause of an unreadable file quotes its line, which may hold a key.
            raise UsageError(f"--output {url}: AWS gives no keys: {error}") from None

    def _configured_endpoint(self) -> str:
        config, profile = self._session.full_config, self._session.get_scoped_config()
        provider = ConfiguredEndpointProvider(config, profile, client_name="s3", environ=os.environ)
        return str(provider.provide() or "")

    def store_options(self) -> dict[str, Any]:
        """Return the arguments with which obstore opens the bucket."""
        config = {"region": self._region} | ({"endpoint": self.endpoint} if self.endpoint else {})
        return {"config": config} | ({} if self._keys is None else {"credential_provider": self._provide})

    def _provide(self) -> S3Credential:
        keys = self._keys.get_frozen_credentials()
        changes = isinstance(self._keys, RefreshableCredentials)
        until = datetime.fromtimestamp(clocks.wall(), UTC) + _RECHECK if changes else None
        secret, token = keys.secret_key, keys.token
        return {
            "access_key_id": keys.access_key,
            "secret_access_key": secret,
            "token": token,
            "expires_at": until,
        }

    async def abort_uploads(self, path: str) -> None:
        """Abort every unfinished upload of exactly this object. Failing to is only untidy, so it is quiet.

        A killed process leaves such uploads invisible, and billed until they are aborted.
        """
        if self._signs:
            key = f"{self._prefix}/{path}" if self._prefix else path
            await anyio.to_thread.run_sync(self._abort_uploads, key)

    def _abort_uploads(self, key: str) -> None:
        with suppress(BotoCoreError, ClientError):
            client = self._open_client()
            for upload in client.list_multipart_uploads(Bucket=self._bucket, Prefix=key).get("Uploads", []):
                if upload["Key"] == key:
                    client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload["UploadId"])

    def _open_client(self) -> Any:
        """Return the one client: it takes 50 ms to make, and its maker is not for several threads.

        Where no keys were found an instance's role is looked for now: nothing else can open the bucket then.
        """
        with self._lock:
            if self._client is None:
                options: dict[str, Any] = {"connect_timeout": 10, "read_timeout": 30}
                if is_local_host(urlsplit(self.endpoint).hostname or ""):
                    options["proxies"] = {}
                config = Config(s3={"addressing_style": "path"}, **options)
                session = _open_session() if self._keys is None else self._session
                self._client = session.create_client(
                    "s3", region_name=self._region, endpoint_url=self.endpoint or None, config=config
                )
            return self._client
