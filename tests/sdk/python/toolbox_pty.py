"""Terminals: made, listed, resized, left and entered again, ended."""
import asyncio

from daytona import DaytonaConflictError, DaytonaError, DaytonaNotFoundError
from daytona.common.pty import PtySize
from kit import check, eventually, raises, unique, val

PTY = "/process/pty"


class Terminal:
    """A terminal whose output both clients collect in `seen`."""

    def __init__(self, box, name):
        self.box, self.name, self.seen, self.handle = box, name, bytearray(), None

    @classmethod
    async def create(cls, box, name=None, **options):
        terminal = cls(box, name or unique("pty"))
        if box.is_async:
            options["on_data"] = terminal.seen.extend
        terminal.handle = await val(box.process.create_pty_session(id=terminal.name, **options))
        return terminal

    @classmethod
    async def connect(cls, box, name):
        terminal = cls(box, name)
        words = [name, terminal.seen.extend] if box.is_async else [name]
        terminal.handle = await val(box.process.connect_pty_session(*words))
        return terminal

    async def type(self, text):
        await val(self.handle.send_input(text))

    async def until(self, text):
        if self.box.is_async:
            return await eventually(f"{text!r} is printed ({bytes(self.seen)!r})", lambda: text.encode() in self.seen)
        if text.encode() not in self.seen:
            for data in self.handle:
                self.seen.extend(data)
                if text.encode() in self.seen:
                    break
        assert text.encode() in self.seen, f"ended before {text!r}: {bytes(self.seen)!r}"

    async def end(self):
        if self.box.is_async:
            return await self.handle.wait()
        return self.handle.wait(on_data=self.seen.extend)

    async def leave(self):
        await val(self.handle.disconnect())


async def names(box):
    return [session.id for session in await val(box.process.list_pty_sessions())]


@check(PTY)
async def pty_lives_on_without_a_client(box):
    terminal = await Terminal.create(box, cwd="/tmp", envs={"MARK": "a b"}, pty_size=PtySize(cols=90, rows=20))
    await terminal.type("echo [$MARK] $PWD $TERM; stty size\n")
    await terminal.until("[a b] /tmp xterm-256color")
    await terminal.until("20 90")
    await terminal.type("kept=still\n")
    await terminal.leave()
    assert terminal.name in await names(box)
    info = await val(box.process.get_pty_session_info(terminal.name))
    assert (info.id, info.cols, info.rows, info.cwd, info.active) == (terminal.name, 90, 20, "/tmp", True), info
    assert info.envs["MARK"] == "a b" and info.created_at, info
    again = await Terminal.connect(box, terminal.name)
    await again.type("echo $kept-here\n")
    await again.until("still-here")
    assert again.handle.is_connected()
    await val(again.handle.kill())
    await again.leave()
    assert not again.handle.is_connected()
    await eventually("it is gone", lambda: gone(box, terminal.name))


async def gone(box, name):
    return name not in await names(box)


@check(PTY)
async def pty_resize(box):
    terminal = await Terminal.create(box)
    info = await val(terminal.handle.resize(PtySize(cols=100, rows=30)))
    assert (info.cols, info.rows) == (100, 30), info
    info = await val(box.process.resize_pty_session(terminal.name, PtySize(cols=101, rows=31)))
    assert (info.cols, info.rows) == (101, 31), info
    await terminal.type("stty size\n")
    await terminal.until("31 101")
    await val(box.process.kill_pty_session(terminal.name))
    await terminal.leave()


@check(PTY)
async def pty_exit_codes(box):
    for code in (0, 7, 130):
        terminal = await Terminal.create(box)
        await terminal.type(f"exit {code}\n")
        result = await terminal.end()
        assert result.exit_code == code, (code, result)
        assert bool(result.error) == (code != 0), result
        await terminal.leave()
        assert terminal.name not in await names(box)


@check(PTY)
async def pty_killed(box):
    terminal = await Terminal.create(box)
    await terminal.type("sleep 3004 &\n")
    await terminal.type("echo rea''dy\n")
    await terminal.until("ready")
    await val(box.process.kill_pty_session(terminal.name))
    result = await terminal.end()
    assert result.exit_code == 137, result
    await terminal.leave()
    await eventually("its children are gone", lambda: no_children(box))


async def no_children(box):
    done = await val(box.process.exec("pgrep -f '[s]leep 3004' || ps -eo stat= | grep '^Z' || echo none"))
    return done.result == "none\n"


@check(PTY)
async def pty_interrupt_and_output(box):
    terminal = await Terminal.create(box)
    await terminal.type("sleep 3005\n")
    await asyncio.sleep(0.2)
    await terminal.type("\x03")
    await terminal.type("head -c 200000 /dev/zero | tr '\\0' z; echo; echo fin''ished\n")
    await terminal.until("finished")
    assert terminal.seen.count(b"z") >= 200_000, "nothing is lost"
    await terminal.type("exit\n")
    await terminal.end()
    await terminal.leave()


@check(PTY)
async def pty_failures(box):
    terminal = await Terminal.create(box)
    with raises(DaytonaConflictError, 409):
        await Terminal.create(box, terminal.name)
    with raises(DaytonaNotFoundError, 404):
        await val(box.process.get_pty_session_info("absent"))
    with raises(DaytonaNotFoundError, 404):
        await val(box.process.kill_pty_session("absent"))
    with raises(DaytonaError):
        await Terminal.connect(box, "absent")
    with raises(DaytonaError):
        await val(box.process.resize_pty_session("absent", PtySize(cols=10, rows=10)))
    await val(terminal.handle.kill())
    await terminal.leave()
