"""Where the files of the lake are: a folder, or a bucket of S3 or of whatever speaks as S3 does."""

import logging
import math
import os
import secrets
import shutil
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import urlsplit

_CONNECT_SECONDS, _READ_SECONDS = 3, 15
_ATTEMPTS = 3
_UNFINISHED = ".unfinished-"
_UNFINISHED_AFTER = timedelta(hours=1)


class StoreUnavailableError(Exception):
    """A file could not be stored; it may be there all the same. The text is for people."""


class Store(Protocol):
    """Where files are; it blocks, so threads ask it."""

    def put(self, path: str, file: IO[bytes]) -> None:
        """Have a file under a path, all of it or as it was before; one that is there is replaced.

        Raises:
            StoreUnavailableError: it cannot be stored now.
        """
        ...

    def remove_days(self, stream: str, *, before: date, now: datetime) -> int:
        """Remove a stream's files of the days before one, where that is not left to the store; return how many."""
        ...

    def close(self) -> None:
        """Hold nothing open."""
        ...


def store_of(place: str) -> Store:
    """Return the store of a place: an absolute folder, or ``s3://bucket/prefix``."""
    if not place.startswith("s3://"):
        return Folder(Path(place))
    parts = urlsplit(place)
    return Bucket(parts.netloc, parts.path.strip("/"))


class Folder:
    """Files in a folder, which is made when it is needed."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, path: str, file: IO[bytes]) -> None:
        """See `Store.put`."""
        target = self._root / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _put(target, file)
        except OSError as error:
            raise StoreUnavailableError(f"{target} cannot be written: {error.strerror or error}.") from error

    def remove_days(self, stream: str, *, before: date, now: datetime) -> int:
        """See `Store.remove_days`; what a writer left behind that died goes too, and nothing that is not ours."""
        removed, unfinished_before = 0, (now - _UNFINISHED_AFTER).timestamp()
        for day in (self._root / stream).glob("dt=*"):
            is_over = (of := _day_of(day)) is not None and of < before
            for file in day.glob("hour=*/*"):
                if is_over and file.suffix == ".parquet":
                    file.unlink(missing_ok=True)
                    removed += 1
                elif file.name.startswith(_UNFINISHED) and _changed_at(file) < unfinished_before:
                    file.unlink(missing_ok=True)
            if is_over:
                _remove_empty([*day.glob("hour=*"), day])
        return removed

    def close(self) -> None:
        """See `Store.close`."""


def _put(target: Path, file: IO[bytes]) -> None:
    unfinished = target.parent / f"{_UNFINISHED}{secrets.token_hex(8)}"
    try:
        with unfinished.open("wb") as copy:
            shutil.copyfileobj(file, copy)
            copy.flush()
            os.fsync(copy.fileno())
        unfinished.replace(target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    # The names are durable only when the folders are.
    for folder in (target.parent, target.parent.parent, target.parent.parent.parent):
        _sync(folder)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _day_of(folder: Path) -> date | None:
    """Return whose day's files are in a folder; None of one that somebody else has put there."""
    try:
        return date.fromisoformat(folder.name.removeprefix("dt="))
    except ValueError:
        return None


def _changed_at(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return math.inf


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            continue  # somebody has put something there


class Bucket:
    """Files in a bucket, under a prefix. Endpoint, region and credentials are where boto3 looks for them.

    How long files are kept is for the bucket's own lifecycle rules.
    """

    def __init__(self, name: str, prefix: str) -> None:
        self._name = name
        self._prefix = prefix
        self._client: Any = None

    def put(self, path: str, file: IO[bytes]) -> None:
        """See `Store.put`."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - half a second, for buckets alone
        from botocore.parsers import ResponseParserError  # noqa: PLC0415 - likewise

        key = f"{self._prefix}/{path}" if self._prefix else path
        try:
            self._opened().put_object(
                Bucket=self._name,
                Key=key,
                Body=file,
                ContentType="application/vnd.apache.parquet",
            )
        except ClientError as error:  # what it was signed with is in its text
            raise StoreUnavailableError(f"s3://{self._name}/{key}: {_code(error.response)}.") from None
        except (BotoCoreError, ResponseParserError) as error:
            raise StoreUnavailableError(f"s3://{self._name}/{key}: {type(error).__name__}.") from None

    def remove_days(self, stream: str, *, before: date, now: datetime) -> int:  # noqa: ARG002 - as all stores have it
        """See `Store.remove_days`."""
        return 0

    def close(self) -> None:
        """See `Store.close`."""
        if self._client is not None:
            self._client.close()

    def _opened(self) -> Any:
        if self._client is None:
            from boto3 import Session  # noqa: PLC0415 - half a second, for buckets alone
            from botocore.config import Config  # noqa: PLC0415 - likewise

            logging.getLogger("botocore").setLevel(logging.INFO)  # below, it shows all that is sent
            config = Config(
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=_READ_SECONDS,
                retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            )
            self._client = Session().client("s3", config=config)
        return self._client


def _code(response: Mapping[str, Any]) -> str:
    code: str = response.get("Error", {}).get("Code", "unknown")
    return code
