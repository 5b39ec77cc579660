"""Query parameters that say who may read a file, not which file it is.

A module of its own because ``dfget`` needs it and may import little.
"""

from __future__ import annotations

TYPE_CHECKING = False  # dfget has no time to import typing
if TYPE_CHECKING:
    from typing import Final

#: What ``dfget`` leaves out of a URL's identity when it is not told otherwise: the signatures
#: of signed URLs, and containerd's namespace. Matched exactly; the list is Dragonfly's own.
DEFAULT_FILTERED_QUERY_PARAMS: Final[tuple[str, ...]] = (
    # Amazon S3
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-SignedHeaders",
    "X-Amz-Signature",
    "X-Amz-Security-Token",
    "X-Amz-User-Agent",
    # Google Cloud Storage
    "X-Goog-Algorithm",
    "X-Goog-Credential",
    "X-Goog-Date",
    "X-Goog-Expires",
    "X-Goog-SignedHeaders",
    "X-Goog-Signature",
    # Alibaba OSS
    "OSSAccessKeyId",
    "Expires",
    "Signature",
    "SecurityToken",
    # Huawei OBS (its Signature and Expires are above)
    "AccessKeyId",
    "X-Obs-Date",
    "X-Obs-Security-Token",
    # Tencent COS
    "q-sign-algorithm",
    "q-ak",
    "q-sign-time",
    "q-key-time",
    "q-header-list",
    "q-url-param-list",
    "q-signature",
    "x-cos-security-token",
    # containerd
    "ns",
)
