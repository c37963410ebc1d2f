"""Places that DVC can share through, on this machine: an SSH server and one that speaks S3."""

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncssh
import boto3
from moto.server import ThreadedMotoServer

LOOPBACK = "127.0.0.1"


@contextmanager
def ssh_server(folder: Path, authorized_keys: Path) -> Iterator[int]:
    """Serves a folder by SFTP, as the server's whole file system, to those with a key.

    Yields:
        The port.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            LOOPBACK,
            0,
            server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
            authorized_client_keys=str(authorized_keys),
            sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=os.fsencode(folder)),
        )

    async def stop(server: asyncssh.SSHAcceptor) -> None:
        server.close()
        await server.wait_closed()

    server = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        yield server.get_port()
    finally:
        asyncio.run_coroutine_threadsafe(stop(server), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def s3_server(bucket: str) -> Iterator[str]:
    """Serves an empty bucket.

    Yields:
        The server's URL.
    """
    server = ThreadedMotoServer(LOOPBACK, 0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    keys = {"aws_access_key_id": "nobody", "aws_secret_access_key": "nothing"}
    try:
        boto3.client("s3", endpoint_url=url, region_name="us-east-1", **keys).create_bucket(
            Bucket=bucket
        )
        yield url
    finally:
        server.stop()
