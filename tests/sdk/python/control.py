"""The control plane through the official Python SDK, unmodified, against a real server: DAYTONA_API_URL and DAYTONA_API_KEY
say which. What reaches into a sandbox is in toolbox.py.

Prints one line for each case and ends with status 1 when one failed.
"""
import asyncio
import hashlib
import inspect
import os
import sys
import tempfile
import time
import traceback
import uuid

from daytona import (
    AsyncDaytona,
    CreateSandboxFromSnapshotParams,
    Daytona,
    DaytonaConfig,
    DaytonaError,
    DaytonaNotFoundError,
    ListSandboxesQuery,
)
from daytona.common.errors import DaytonaAuthenticationError, DaytonaBadRequestError, DaytonaConflictError
from kit import raises, unique

BIG_BYTES = 100 << 20


def gone(daytona, sandbox):
    """A deleted sandbox may still be seen on its way out, as `destroying`; then nobody knows it."""
    for _ in range(200):
        try:
            assert daytona.get(sandbox.id).state in ("destroying", "destroyed")
        except DaytonaNotFoundError as error:
            assert error.status_code == 404
            return
        time.sleep(0.02)
    raise AssertionError("a deleted sandbox can still be had")


def test_create_with_defaults(daytona, _):
    sandbox = daytona.create()
    try:
        assert sandbox.state == "started", sandbox.state
        assert (sandbox.cpu, sandbox.memory, sandbox.disk) == (1, 1, 3), sandbox
        assert sandbox.auto_stop_interval == 15 and sandbox.auto_delete_interval == -1
        assert sandbox.user == "daytona"
        assert sandbox.env == {} and sandbox.labels == {"code-toolbox-language": "python"}
        assert sandbox.process.exec("echo hello").result == "hello\n"
    finally:
        sandbox.delete()
    gone(daytona, sandbox)


def test_create_with_everything(daytona, _):
    name = unique("named")
    params = CreateSandboxFromSnapshotParams(
        name=name, language="python", env_vars={"COLOUR": "blue"}, labels={"team": "red"}, auto_stop_interval=30
    )
    sandbox = daytona.create(params)
    try:
        assert sandbox.name == name and sandbox.auto_stop_interval == 30
        assert sandbox.labels["team"] == "red"
        assert sandbox.process.exec("echo $COLOUR").result.strip() == "blue"
        assert daytona.get(name).id == sandbox.id == daytona.get(sandbox.id).id
        with raises(DaytonaConflictError, 409):
            daytona.create(CreateSandboxFromSnapshotParams(name=name))
    finally:
        sandbox.delete()


def test_hundred_mebibytes(_, sandbox):
    fs = sandbox.fs
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory() as folder:
        source, back = os.path.join(folder, "source"), os.path.join(folder, "back")
        with open(source, "wb") as file:
            for _ in range(BIG_BYTES >> 20):
                block = os.urandom(1 << 20)
                digest.update(block)
                file.write(block)
        start = time.monotonic()
        fs.upload_file(source, "big.bin")
        up = time.monotonic() - start
        seen = sandbox.process.exec("sha256sum big.bin").result.split()[0]
        assert seen == digest.hexdigest(), "the sandbox holds other bytes"
        start = time.monotonic()
        fs.download_file("big.bin", back)
        down = time.monotonic() - start
        with open(back, "rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == digest.hexdigest(), "other bytes came back"
    print(f"   100 MiB up in {up:.2f} s, down in {down:.2f} s")
    fs.delete_file("big.bin")


def test_list_and_labels(daytona, _):
    mark = unique("mark")
    sandboxes = [daytona.create(CreateSandboxFromSnapshotParams(labels={"mark": mark, "n": str(n)})) for n in range(3)]
    try:
        query = ListSandboxesQuery(labels={"mark": mark}, limit=2)
        found = list(daytona.list(query))
        assert sorted(s.id for s in found) == sorted(s.id for s in sandboxes), "each once, over two pages"
        sandboxes[0].set_labels({"mark": unique("other")})
        sandboxes[0].refresh_data()
        assert "n" not in sandboxes[0].labels, "labels are replaced"
        assert len(list(daytona.list(query))) == 2
    finally:
        for sandbox in sandboxes:
            sandbox.delete()


def test_intervals(daytona, sandbox):
    sandbox.set_autostop_interval(45)
    sandbox.set_auto_archive_interval(0)
    sandbox.set_auto_delete_interval(120)
    seen = daytona.get(sandbox.id)
    assert (seen.auto_stop_interval, seen.auto_archive_interval, seen.auto_delete_interval) == (45, 43200, 120)
    sandbox.set_auto_delete_interval(-1)
    sandbox.refresh_activity()


def test_stop_and_start_keep_files(daytona, _):
    sandbox = daytona.create()
    try:
        sandbox.fs.upload_file(b"kept", "kept.txt")
        sandbox.process.exec("echo more > /tmp/more; sudo touch /etc/mine")
        sandbox.stop()
        assert sandbox.state == "stopped"
        with raises(DaytonaError):
            sandbox.process.exec("true")
        sandbox.start()
        assert sandbox.state == "started"
        assert sandbox.fs.download_file("kept.txt") == b"kept"
        assert sandbox.process.exec("ls /etc/mine").exit_code == 0
    finally:
        sandbox.delete()


def test_errors(daytona, _):
    url = os.environ["DAYTONA_API_URL"]
    with raises(DaytonaAuthenticationError, 401):
        Daytona(DaytonaConfig(api_key="dtn_" + "0" * 64, api_url=url)).create()
    with raises(DaytonaNotFoundError, 404):
        daytona.get(str(uuid.uuid4()))
    with raises(DaytonaNotFoundError, 404):
        daytona.get("no-sandbox-of-this-name")
    with raises(DaytonaBadRequestError, 400):
        daytona.create(CreateSandboxFromSnapshotParams(snapshot="no/such-snapshot:1"))


def test_snapshots(daytona, _):
    found = daytona.snapshot.list()
    assert found.total >= 1 and found.items, found
    default = daytona.snapshot.get("infield/base:1")
    assert default.state == "active" and default.general


def test_events_do_not_get_in_the_way(daytona, _):
    """The SDK tries Socket.IO in the background; whatever the server says there, waiting works by asking."""
    sandbox = daytona.create()
    sandbox.delete(wait=True) if "wait" in inspect.signature(sandbox.delete).parameters else sandbox.delete()


def test_async_client(_, __):
    async def all_of_it():
        async with AsyncDaytona() as daytona:
            sandbox = await daytona.create()
            try:
                answers = await asyncio.gather(*(sandbox.process.exec(f"echo {n}") for n in range(20)))
                assert [a.result.strip() for a in answers] == [str(n) for n in range(20)]
                await sandbox.fs.upload_file(b"async", "a.txt")
                assert await sandbox.fs.download_file("a.txt") == b"async"
                assert (await sandbox.process.code_run("print('hi')")).result.strip() == "hi"
                assert (await daytona.get(sandbox.id)).id == sandbox.id
                await sandbox.stop()
                await sandbox.start()
                assert await sandbox.fs.download_file("a.txt") == b"async"
            finally:
                await sandbox.delete()

    asyncio.run(all_of_it())


def main():
    wanted = sys.argv[1:]
    cases = [(name, case) for name, case in globals().items() if name.startswith("test_")]
    cases = [(name, case) for name, case in cases if not wanted or name in wanted]
    daytona = Daytona()
    shared = daytona.create()
    failed = []
    try:
        for name, case in cases:
            start = time.monotonic()
            try:
                case(daytona, shared)
                print(f"ok {name} {1000 * (time.monotonic() - start):.0f} ms", flush=True)
            except Exception:  # noqa: BLE001 - every failure is reported, then the next case runs
                failed.append(name)
                print(f"FAILED {name}\n{traceback.format_exc()}", flush=True)
    finally:
        shared.delete()
    print(f"{len(cases) - len(failed)} passed, {len(failed)} failed: {failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
