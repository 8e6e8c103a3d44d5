"""A server on this machine that speaks the protocol of S3 (moto), and what it holds, as another library reads it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3

from tests.waiting import PATIENCE, wait_until

KEY, SECRET = "AKIAOFTHETESTS000000", "a-secret-that-must-be-nowhere"
REGION = "us-east-1"


class Bucket:
    """A bucket of its own on the server, with the ``environment`` in which a program reaches it.

    Parameters
    ----------
    endpoint
        Address of the server.
    name
        Name of the bucket, which is made.
    log
        The log of the server, which has a line for each request.
    """

    def __init__(self, endpoint: str, name: str, log: Path) -> None:
        self.name, self._log = name, log
        self.environment = {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": endpoint,
        }
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name=REGION,
        )
        self.client.create_bucket(Bucket=name)
        self._seen = 0
        self.requests()

    def contents(self, prefix: str = "") -> dict[str, bytes]:
        """Return the objects whose names begin so, without that beginning."""
        found = self.client.list_objects_v2(Bucket=self.name, Prefix=prefix).get("Contents", [])
        keys = [one["Key"] for one in found]
        return {
            key.removeprefix(prefix): self.client.get_object(Bucket=self.name, Key=key)["Body"].read() for key in keys
        }

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=content)

    def requests(self) -> list[tuple[str, str]]:
        """Return the methods and names of objects of the requests since the last call."""
        lines = self._log.read_text(errors="replace").splitlines()
        new, self._seen = lines[self._seen :], len(lines)
        found = [re.search(rf'"(\w+) /{self.name}/([^?\s]+)', line) for line in new]
        return [(one[1], one[2]) for one in found if one is not None]


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, Path]]:
    """Run the server in a process of its own; yield its address and its log."""
    log = folder / "moto.log"
    with log.open("wb") as file:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        process = subprocess.Popen(command, stdout=file, stderr=file, env=os.environ | {"PYTHONUNBUFFERED": "1"})

    def address() -> str | None:
        """Return where the server says that it runs: at a port that was free."""
        assert process.poll() is None, log.read_text()
        found = re.search(r"Running on (http://[\d.:]+)", log.read_text())
        return None if found is None else found[1]

    try:
        wait_until(address)
        endpoint = address()
        assert endpoint is not None
        yield endpoint, log
    finally:
        process.terminate()
        process.wait(PATIENCE)
