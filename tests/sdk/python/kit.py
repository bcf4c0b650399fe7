"""What the checks of the Python SDK share. Each check is an `async def` and runs with both clients: `val` awaits what the
async client returns and passes on what the sync one does. One line of output per check."""
import asyncio
import inspect
import json
import os
import pathlib
import signal
import time
import traceback
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[3]
CHECK_SECONDS_MAX = 90
CHECKS = []


class Box:
    """A sandbox to check, and the client it came from."""

    def __init__(self, client, sandbox, is_async):
        self.client, self.sandbox, self.is_async = client, sandbox, is_async
        self.fs, self.git, self.process = sandbox.fs, sandbox.git, sandbox.process
        self.interpreter = sandbox.code_interpreter

    async def sh(self, command):
        done = await val(self.process.exec(command))
        assert done.exit_code == 0, f"`{command}`: {done.exit_code} {done.result}"
        return done.result


def check(prefix):
    """Registers a check of the operations whose path begins with `prefix`, or is it."""

    def register(function):
        CHECKS.append((prefix, function))
        return function

    return register


async def val(value):
    return await value if inspect.isawaitable(value) else value


async def pieces(stream):
    """All of a streamed download."""
    stream = await val(stream)
    if hasattr(stream, "__aiter__"):
        return [piece async for piece in stream]
    return list(stream)


async def eventually(what, condition):
    for _ in range(1000):
        found = await val(condition())
        if found:
            return found
        await asyncio.sleep(0.02)
    raise AssertionError(f"{what}: never")


class raises:
    """`with raises(Kind, 404) as caught:`; the error is `caught.error`."""

    def __init__(self, kind, status=None):
        self.kind, self.status, self.error = kind, status, None

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        assert error is not None, f"nothing was raised; {self.kind.__name__} expected"
        if not isinstance(error, self.kind):
            if unbuilt(error):
                return False
            raise AssertionError(f"{kind.__name__}({error}) instead of {self.kind.__name__}") from error
        if self.status is not None:
            assert error.status_code == self.status, f"{error.status_code}: {error}"
        assert str(error).strip(), "an error without words"
        self.error = error
        return True


def unique(word):
    return f"{word}-{uuid.uuid4().hex[:8]}"


def unbuilt(error):
    words = ("HTTP 501", "501 Not Implemented", "Invalid response status", "not implemented by")
    return getattr(error, "status_code", None) == 501 or any(word in str(error) for word in words)


def may_be_unbuilt(prefix):
    """Whether 501 is no failure: the desktop with its recordings, and single operations that spec/coverage.json lists."""
    coverage = json.loads((ROOT / "spec/coverage.json").read_text())
    rows = coverage["toolbox"] + coverage["extras"] + coverage["api"]
    later = [row["path"] for row in rows if row["status"] == "not-yet"]
    return prefix in later or (prefix == "/computeruse" and any(path.startswith("/computeruse/") for path in later))


async def one(box, function):
    """Runs a check within its time, whichever client blocks."""
    if box.is_async:
        return await asyncio.wait_for(function(box), CHECK_SECONDS_MAX)

    def late(*_):
        raise TimeoutError(f"not done after {CHECK_SECONDS_MAX} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(CHECK_SECONDS_MAX)
    try:
        return await function(box)
    finally:
        signal.alarm(0)


async def run_all(box, wanted):
    """Runs the checks and returns how many failed."""
    kind, passed, failed, absent = "async" if box.is_async else "sync", 0, [], []
    for prefix, function in CHECKS:
        name = function.__name__
        if wanted and name not in wanted:
            continue
        start = time.monotonic()
        try:
            await one(box, function)
            passed += 1
            print(f"ok {kind} {name} {1000 * (time.monotonic() - start):.0f} ms", flush=True)
        except Exception as error:  # noqa: BLE001 - every failure is reported, then the next check runs
            if unbuilt(error) and may_be_unbuilt(prefix):
                absent.append(name)
                print(f"-- {kind} {name}: not built yet: {error}", flush=True)
            else:
                failed.append(name)
                print(f"FAILED {kind} {name}\n{traceback.format_exc()}", flush=True)
    print(f"{kind}: {passed} passed, {len(failed)} failed {failed}, {len(absent)} not built yet", flush=True)
    return len(failed)


def environment(name):
    value = os.environ.get(name, "")
    assert value, f"{name} is not set; the Rust test that runs this file sets it"
    return value
