"""Uploads to S3 that a killed process began and nobody will finish: find them by name and abort them.

An unfinished multipart upload is invisible and is billed until it is aborted. obstore can abort its own
but cannot list another process's, so these two requests (ListMultipartUploads, AbortMultipartUpload)
are made and signed here, with the keys of the environment or the AWS profile. Where there are none (an
instance's role), a lifecycle rule on the bucket has to do it. Azure drops such blocks by itself after a week.

Source: AWS General Reference, "Signature Version 4"; Amazon S3 API Reference.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import unescape
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

from pipeline import system
from pipeline.errors import UsageError
from pipeline.net.proxy import proxy_for, proxy_request_options

if TYPE_CHECKING:
    from collections.abc import Mapping

_UPLOAD: Final = re.compile(r"<Upload>(.*?)</Upload>", re.DOTALL)
_KEY: Final = re.compile(r"<Key>(.*?)</Key>", re.DOTALL)
_ID: Final = re.compile(r"<UploadId>(.*?)</UploadId>", re.DOTALL)
_EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class MultipartUploads:
    """The unfinished uploads under one bucket's prefix."""

    endpoint: str
    bucket: str
    prefix: str
    region: str
    key_id: str
    secret: str = field(repr=False)
    token: str = field(repr=False)

    @classmethod
    def from_url(cls, url: str, environ: Mapping[str, str]) -> MultipartUploads | None:
        """Those of an `s3://` URL, if the environment holds keys to ask with; else None."""
        key_id, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
        parts = urlsplit(url)
        if parts.scheme not in ("s3", "s3a") or not key_id or not secret:
            return None
        region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")
        return cls(
            endpoint=(endpoint or f"https://s3.{region}.amazonaws.com").rstrip("/"),
            bucket=parts.netloc,
            prefix=parts.path.strip("/"),
            region=region,
            key_id=key_id,
            secret=secret,
            token=environ.get("AWS_SESSION_TOKEN") or "",
        )

    async def abort_all(self, path: str) -> None:
        """Abort every unfinished upload of exactly this object. Failing to is only untidy, so it is quiet."""
        key = f"{self.prefix}/{path}" if self.prefix else path
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
                for upload_id in await self._list(session, key):
                    await self._send(session, "DELETE", key, {"uploadId": upload_id})
        except (aiohttp.ClientError, TimeoutError, UsageError):
            return

    async def _list(self, session: aiohttp.ClientSession, key: str) -> list[str]:
        found = await self._send(session, "GET", "", {"prefix": key, "uploads": ""})
        entries = [(_KEY.search(entry), _ID.search(entry)) for entry in _UPLOAD.findall(found)]
        return [unescape(id_[1]) for name, id_ in entries if name and id_ and unescape(name[1]) == key]

    async def _send(
        self, session: aiohttp.ClientSession, method: str, key: str, query: Mapping[str, str]
    ) -> str:
        path = quote(f"/{self.bucket}/{key}" if key else f"/{self.bucket}", safe="/-_.~")
        query_string = "&".join(
            f"{quote(name, safe='-_.~')}={quote(query[name], safe='-_.~')}" for name in sorted(query)
        )
        headers = self.signed_headers(method, path, query_string, datetime.fromtimestamp(system.wall(), UTC))
        url = URL(f"{self.endpoint}{path}?{query_string}", encoded=True)
        proxy_options = proxy_request_options(proxy_for(url, os.environ))
        async with session.request(
            method, url, headers=headers, allow_redirects=False, **proxy_options
        ) as response:
            return await response.text() if response.status == 200 else ""

    def signed_headers(self, method: str, path: str, query: str, now: datetime) -> dict[str, str]:
        """The headers of a request without a body, signed for `now`."""
        base = urlsplit(self.endpoint)
        stamp = now.strftime("%Y%m%dT%H%M%SZ")
        headers = {"host": base.netloc, "x-amz-content-sha256": _EMPTY_SHA256, "x-amz-date": stamp}
        if self.token:
            headers["x-amz-security-token"] = self.token
        names = ";".join(sorted(headers))
        lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        request = "\n".join((method, f"{base.path}{path}", query, lines, names, _EMPTY_SHA256))
        scope = f"{stamp[:8]}/{self.region}/s3/aws4_request"
        digest = hashlib.sha256(request.encode()).hexdigest()
        secret = f"AWS4{self.secret}".encode()
        for part in scope.split("/"):
            secret = hmac.digest(secret, part.encode(), "sha256")
        text = "\n".join(("AWS4-HMAC-SHA256", stamp, scope, digest))
        signature = hmac.digest(secret, text.encode(), "sha256").hex()
        headers["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
        return headers
