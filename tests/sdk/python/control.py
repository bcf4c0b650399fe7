"""The control plane through the official Python SDK, unmodified, against a real server: DAYTONA_API_URL and DAYTONA_API_KEY
say which. What reaches into a sandbox is in toolbox.py.

Prints one line for each case and ends with status 1 when one failed.
"""
import asyncio
import datetime
import hashlib
import http.client
import inspect
import os
import sys
import tempfile
import time
import traceback
import urllib.parse
import uuid

import socketio
import websocket
from daytona import (
    AsyncDaytona,
    CreateSandboxFromSnapshotParams,
    Daytona,
    DaytonaConfig,
    DaytonaError,
    DaytonaNotFoundError,
    ListSandboxesQuery,
    SessionExecuteRequest,
    VolumeMount,
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


def test_ssh_access(daytona, sandbox):
    """A token for SSH: one at a time, looked up with the user's own key, ended by name or altogether."""
    first = sandbox.create_ssh_access(expires_in_minutes=5)
    assert first.sandbox_id == sandbox.id and first.token in first.ssh_command, first
    assert len(first.token) == 32 and first.token.isalnum(), first.token
    found = sandbox.validate_ssh_access(first.token)
    assert (found.valid, found.sandbox_id) == (True, sandbox.id), found
    second = sandbox.create_ssh_access()
    assert not sandbox.validate_ssh_access(first.token).valid
    assert sandbox.validate_ssh_access(second.token).valid
    sandbox.revoke_ssh_access(second.token)
    gone = sandbox.validate_ssh_access(second.token)
    assert (gone.valid, gone.sandbox_id) == (False, ""), gone


def test_previews(daytona, sandbox):
    """A port under a host of its own; how it resolves is the machine's affair, so the host is named and the address is not."""
    api = urllib.parse.urlsplit(os.environ["DAYTONA_API_URL"])
    sandbox.fs.upload_file(b"seen", "shown/index.html")
    sandbox.process.exec("setsid python3 -m http.server 3100 -d shown >/dev/null 2>&1 &")

    def asked(url, headers=None):
        parts = urllib.parse.urlsplit(url)
        connection = http.client.HTTPConnection(api.hostname, api.port, timeout=60)
        connection.request("GET", "/", headers={"Host": parts.netloc, **(headers or {})})
        answer = connection.getresponse()
        return answer.status, answer.read()

    link = sandbox.get_preview_link(3100)
    token = {"X-Daytona-Preview-Token": link.token}
    for _ in range(500):
        if asked(link.url, token)[0] == 200:
            break
        time.sleep(0.02)
    assert asked(link.url, token) == (200, b"seen"), asked(link.url, token)
    assert asked(link.url)[0] == 401
    signed = sandbox.create_signed_preview_url(3100, expires_in_seconds=300)
    assert asked(signed.url) == (200, b"seen")
    sandbox.expire_signed_preview_url(3100, signed.token)
    assert asked(signed.url)[0] == 403
    with raises(DaytonaBadRequestError, 400):
        sandbox.get_preview_link(0)


def test_sockets_of_other_clients(_, sandbox):
    """The official clients that cannot be had everywhere: Ruby follows logs under the host of port 2280, TypeScript in a
    browser under the toolbox's URL with port 1's token in the query."""
    api = urllib.parse.urlsplit(os.environ["DAYTONA_API_URL"])
    sandbox.process.create_session("sockets")
    request = SessionExecuteRequest(command="echo first; sleep 0.2; echo last", run_async=True)
    command = sandbox.process.execute_session_command("sockets", request).cmd_id
    path = f"/process/session/sockets/command/{command}/logs?follow=true"

    def followed(url, **options):
        socket = websocket.create_connection(url, timeout=60, **options)
        said = b""
        while True:
            opcode, data = socket.recv_data()
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                return said
            said += data

    link = sandbox.get_preview_link(2280)
    host = urllib.parse.urlsplit(link.url).netloc
    assert host.startswith(f"2280-{sandbox.id}."), host
    by_host = followed(f"ws://{api.netloc}{path}", host=host, header=[f"X-Daytona-Preview-Token: {link.token}"])
    assert b"first" in by_host and b"last" in by_host, by_host
    token = sandbox.get_preview_link(1).token
    by_query = followed(f"ws://{api.netloc}/toolbox/{sandbox.id}{path}&DAYTONA_SANDBOX_AUTH_KEY={token}")
    assert b"first" in by_query and b"last" in by_query, by_query
    sandbox.process.delete_session("sockets")


def test_volumes(daytona, _):
    name = unique("volume")
    volume = daytona.volume.get(name, create=True)
    for _ in range(500):
        if daytona.volume.get(name).state == "ready":
            break
        time.sleep(0.02)
    assert daytona.volume.get(name).id == volume.id
    assert volume.id in [v.id for v in daytona.volume.list()]
    mount = VolumeMount(volume_id=volume.id, mount_path="/home/daytona/kept")
    first = daytona.create(CreateSandboxFromSnapshotParams(volumes=[mount]))
    try:
        first.fs.upload_file(b"kept", "kept/file.txt")
        assert daytona.get(first.id).volumes[0].volume_id == volume.id
        # The volumes of this client raise what its generated part raises.
        try:
            daytona.volume.delete(volume)
        except Exception as error:  # noqa: BLE001
            assert "409" in str(error) or getattr(error, "status_code", None) == 409, error
        else:
            raise AssertionError("a volume in use was deleted")
    finally:
        first.delete()
    second = daytona.create(CreateSandboxFromSnapshotParams(volumes=[mount]))
    try:
        assert second.fs.download_file("kept/file.txt") == b"kept"
    finally:
        second.delete()
    daytona.volume.delete(volume)
    for _ in range(500):
        if name not in [v.name for v in daytona.volume.list()]:
            return
        time.sleep(0.02)
    raise AssertionError("a deleted volume is still listed")


def listening(token, heard):
    """The client library of the SDK, as the SDK uses it."""
    api = urllib.parse.urlsplit(os.environ["DAYTONA_API_URL"])
    client = socketio.Client(reconnection=False)
    client.on("*", lambda event, data: heard.append((time.time(), event, data)))
    client.connect(
        f"{api.scheme}://{api.netloc}", auth={"token": token}, transports=["websocket"],
        socketio_path=f"{api.path}/socket.io/", wait_timeout=20,
    )
    return client


def test_events(daytona, _):
    heard = []
    client = listening(os.environ["DAYTONA_API_KEY"], heard)

    def wait_for(event, sandbox, **wanted):
        for _ in range(500):
            for at, name, data in list(heard):
                body = data.get("sandbox", data)
                if name == event and body["id"] == sandbox.id and all(data.get(k) == v for k, v in wanted.items()):
                    return at, body
            time.sleep(0.02)
        raise AssertionError(f"{event} {wanted} of {sandbox.id} was not heard: {[(e, d) for _, e, d in heard]}")

    try:
        sandbox = daytona.create()
        _, created = wait_for("sandbox.created", sandbox)
        assert created["toolboxProxyUrl"] == sandbox.toolbox_proxy_url, "reached where this client reaches it"
        wait_for("sandbox.state.updated", sandbox, newState="started")
        sandbox.stop()
        _, body = wait_for("sandbox.desired-state.updated", sandbox, newDesiredState="stopped")
        _, body = wait_for("sandbox.state.updated", sandbox, newState="stopped")
        assert body["state"] == "stopped"
        sandbox.delete()
        wait_for("sandbox.state.updated", sandbox, newState="destroyed")
        changes = [(at, data["sandbox"]["updatedAt"]) for at, name, data in heard if name == "sandbox.state.updated"]
        late = [at - datetime.datetime.fromisoformat(changed).timestamp() for at, changed in changes]
        print(f"   heard {1000 * max(late):.0f} ms after the change at most")
    finally:
        client.disconnect()
    for token in ("dtn_wrong", "", None):
        try:
            listening(token, [])
        except socketio.exceptions.ConnectionError:
            continue
        raise AssertionError(f"{token!r} may listen")


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
