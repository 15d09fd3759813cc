"""A bucket of S3, for writes with a condition, which pyarrow lacks."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from pipeline.secrecy import hide_secrets

CONFLICTS = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409", "NoSuchKey", "404"}


class Version(NamedTuple):
    """The content of a file, and what tells this content from others."""

    content: bytes
    version: str


class Bucket:
    """Files of a bucket, by their path with the bucket's name at its start."""

    def __init__(self, url: str) -> None:
        """`url`: s3://..., with keys, region and endpoint."""
        import boto3  # a second that users of folders need not spend
        from botocore.config import Config

        parts = urlsplit(url)
        options = {name: values[0] for name, values in parse_qs(parts.query).items()}
        endpoint = options.get("endpoint_override")
        self.label = hide_secrets(url)
        self.name = parts.netloc.rpartition("@")[2]
        # The default session is not for several threads.
        self.client: Any = boto3.session.Session().client(
            "s3",
            aws_access_key_id=unquote(parts.username) if parts.username else None,
            aws_secret_access_key=unquote(parts.password) if parts.password else None,
            # A lease is to be renewed within its term.
            config=Config(
                connect_timeout=5,
                read_timeout=5,
                retries={"mode": "standard", "total_max_attempts": 4},
            ),
            region_name=options.get("region"),
            endpoint_url=f"{options.get('scheme', 'https')}://{endpoint}" if endpoint else None,
        )

    def read(self, path: str) -> Version | None:
        """The content of a file with its version; None if there is no such file.

        Raises:
            OSError: the store cannot be used.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            entry = self.client.get_object(Bucket=self.name, Key=self._key(path))
            return Version(entry["Body"].read(), entry["ETag"])
        except self.client.exceptions.NoSuchKey:
            return None
        except (ClientError, BotoCoreError) as error:
            raise OSError(hide_secrets(f"{self.label}: {error}")) from error

    def write_if(self, content: bytes, version: str | None, path: str) -> bool:
        """Write a file only if its version is still the given one; None stands for no file.

        Returns:
            Whether the file was written.

        Raises:
            OSError: the store cannot be used.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
        try:
            self.client.put_object(Bucket=self.name, Key=self._key(path), Body=content, **condition)
        except ClientError as error:
            if error.response["Error"]["Code"] in CONFLICTS:
                return False
            raise OSError(hide_secrets(f"{self.label}: {error}")) from error
        except BotoCoreError as error:  # such as no connection, or no keys
            raise OSError(hide_secrets(f"{self.label}: {error}")) from error
        return True

    def _key(self, path: str) -> str:
        return path.removeprefix(f"{self.name}/")
