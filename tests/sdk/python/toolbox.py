"""Every method of the official Python SDK that reaches a sandbox, unmodified, against a real server:
toolbox.py sync|async [CHECK...]

DAYTONA_API_URL and DAYTONA_API_KEY say which server, GIT_URL a repository that sandboxes can clone and write, GIT_PRIVATE_URL
one that asks for credentials.
"""
import asyncio
import sys

from daytona import AsyncDaytona, Daytona
from kit import Box, run_all
import toolbox_code  # noqa: F401 - each registers its checks
import toolbox_files  # noqa: F401
import toolbox_git  # noqa: F401
import toolbox_interpreter  # noqa: F401
import toolbox_lsp  # noqa: F401
import toolbox_process  # noqa: F401
import toolbox_pty  # noqa: F401
import toolbox_sessions  # noqa: F401


async def with_async(wanted):
    async with AsyncDaytona() as client:
        sandbox = await client.create()
        try:
            return await run_all(Box(client, sandbox, True), wanted)
        finally:
            await sandbox.delete()


async def with_sync(wanted):
    client = Daytona()
    sandbox = client.create()
    try:
        return await run_all(Box(client, sandbox, False), wanted)
    finally:
        sandbox.delete()


if __name__ == "__main__":
    failed = asyncio.run((with_async if sys.argv[1] == "async" else with_sync)(sys.argv[2:]))
    sys.exit(1 if failed else 0)
