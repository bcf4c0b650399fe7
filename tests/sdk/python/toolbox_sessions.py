"""Sessions: one shell for many commands, their logs, their input."""
import asyncio

from daytona import (
    DaytonaBadRequestError,
    DaytonaConflictError,
    DaytonaError,
    DaytonaNotFoundError,
    SessionExecuteRequest,
)
from daytona.common.errors import DaytonaCommandAlreadyCompletedError, DaytonaProcessNotFoundError, DaytonaSessionEndedError
from kit import check, eventually, raises, unique, val

SESSIONS = "/process/session"


class Session:
    """`async with Session(box) as session`; deleted at the end."""

    def __init__(self, box):
        self.box, self.process, self.name = box, box.process, unique("session")

    async def __aenter__(self):
        await val(self.process.create_session(self.name))
        return self

    async def __aexit__(self, *_):
        try:
            await val(self.process.delete_session(self.name))
        except DaytonaNotFoundError:
            pass

    async def run(self, command, **options):
        return await val(self.process.execute_session_command(self.name, SessionExecuteRequest(command=command, **options)))

    async def start(self, command, **options):
        return (await self.run(command, run_async=True, **options)).cmd_id

    async def logs(self, command):
        return await val(self.process.get_session_command_logs(self.name, command))

    async def done(self, command):
        async def code():
            return (await val(self.process.get_session_command(self.name, command))).exit_code is not None

        await eventually("the command ends", code)
        return await val(self.process.get_session_command(self.name, command))


@check(SESSIONS)
async def session_keeps_its_state(box):
    async with Session(box) as session:
        first = await session.run("export KEPT=yes; cd /tmp; greet() { echo hello $1; }")
        assert first.exit_code == 0 and first.cmd_id, first
        done = await session.run("echo $KEPT; pwd; greet you; echo oops >&2")
        assert (done.stdout, done.stderr) == ("yes\n/tmp\nhello you\n", "oops\n"), done
        assert done.exit_code == 0 and "\x01\x01\x01" in done.output and "\x02\x02\x02oops" in done.output, done
        assert (await session.run("(exit 5)")).exit_code == 5
        assert (await session.run("printf 'no newline'")).stdout.rstrip("\n") == "no newline"
        assert "syntax error" in (await session.run("if")).stderr
        assert (await session.run("cat")).stdout == "", "a sync command sees the end of its input at once"


@check(SESSIONS)
async def session_is_listed_until_deleted(box):
    async with Session(box) as session:
        found = await val(box.process.get_session(session.name))
        assert (found.session_id, found.commands or []) == (session.name, [])
        await session.run("echo first")
        await session.run("echo second")
        found = await val(box.process.get_session(session.name))
        assert [(c.command, c.exit_code) for c in found.commands] == [("echo first", 0), ("echo second", 0)], found
        listed = [s.session_id for s in await val(box.process.list_sessions())]
        assert session.name in listed and "entrypoint" not in listed, listed
        with raises(DaytonaConflictError, 409):
            await val(box.process.create_session(session.name))
    assert session.name not in [s.session_id for s in await val(box.process.list_sessions())]
    for gone in (box.process.get_session, box.process.delete_session):
        with raises(DaytonaProcessNotFoundError, 404):
            await val(gone(session.name))
    with raises(DaytonaProcessNotFoundError, 404):
        await session.run("true")


@check(SESSIONS)
async def session_commands_in_the_background(box):
    async with Session(box) as session:
        command = await session.start("echo one; echo two >&2; sleep 0.2; echo three")
        seen = await val(box.process.get_session_command(session.name, command))
        assert seen.id == command and "echo one" in seen.command
        assert (await session.done(command)).exit_code == 0
        logs = await session.logs(command)
        assert (logs.stdout, logs.stderr) == ("one\nthree\n", "two\n"), logs
        assert "one" in logs.output
        with raises(DaytonaNotFoundError, 404):
            await session.logs("00000000-0000-4000-8000-000000000000")
        with raises(DaytonaBadRequestError, 400):
            await session.run("  ")


@check(SESSIONS)
async def session_commands_run_one_after_the_other(box):
    async with Session(box) as session:
        await session.start("sleep 0.3; echo a >> order")
        assert (await session.run("echo b >> order; cat order; rm order")).stdout == "a\nb\n"


@check(SESSIONS)
async def session_input(box):
    async with Session(box) as session:
        command = await session.start("read a; read b; echo got $a and $b")
        await val(box.process.send_session_command_input(session.name, command, "first"))
        await val(box.process.send_session_command_input(session.name, command, "second\n"))
        assert (await session.done(command)).exit_code == 0
        assert (await session.logs(command)).stdout == "first\nsecond\ngot first and second\n", "input is echoed"
        with raises(DaytonaCommandAlreadyCompletedError, 410):
            await val(box.process.send_session_command_input(session.name, command, "late"))
        quiet = await session.start("read a; echo got $a", suppress_input_echo=True)
        await val(box.process.send_session_command_input(session.name, quiet, "first"))
        await session.done(quiet)
        assert (await session.logs(quiet)).stdout == "got first\n"


@check(SESSIONS)
async def session_whose_shell_exits(box):
    async with Session(box) as session:
        assert (await session.run("exit 3")).exit_code == 3
        with raises(DaytonaSessionEndedError, 410):
            await session.run("true")


@check(SESSIONS)
async def session_logs_are_followed(box):
    async with Session(box) as session:
        command = await session.start("for n in 1 2 3; do echo out $n; echo err $n >&2; sleep 0.1; done; printf 'é%.0s' $(seq 3000)")
        out, err = [], []
        await box.process.get_session_command_logs_async(session.name, command, out.append, err.append)
        assert "".join(out).rstrip("\n") == "out 1\nout 2\nout 3\n" + "é" * 3000, "".join(out)[:200]
        assert "".join(err) == "err 1\nerr 2\nerr 3\n", err
        assert (await session.done(command)).exit_code == 0, "all was sent before the end was told"
        again = []
        await box.process.get_session_command_logs_async(session.name, command, again.append, again.append)
        assert "out 1" in "".join(again), "replayed from the start"


@check(SESSIONS)
async def session_deleted_while_it_runs(box):
    async with Session(box) as session:
        command = await session.start("sleep 3003 & setsid sleep 3003 & echo begun; wait")
        begun = asyncio.Event()
        following = asyncio.create_task(
            box.process.get_session_command_logs_async(session.name, command, lambda _: begun.set(), lambda _: None)
        )
        await asyncio.wait_for(begun.wait(), 10)
        await val(box.process.delete_session(session.name))
        await following
    await eventually("nothing of it is left", lambda: left(box))


async def left(box):
    done = await val(box.process.exec("pgrep -f '[s]leep 3003' || ps -eo stat= | grep '^Z' || echo none"))
    return done.result == "none\n"


@check(SESSIONS)
async def session_names_are_free_text(box):
    for name in ("../../etc", "with space", "ünïcode", "a" * 200):
        name = unique(name)
        try:
            await val(box.process.create_session(name))
        except DaytonaNotFoundError:
            raise
        assert (await val(box.process.get_session(name))).session_id == name
        await val(box.process.delete_session(name))


@check(SESSIONS)
async def entrypoint_session(box):
    found = await val(box.process.get_entrypoint_session())
    assert found.session_id == "entrypoint" and [c.id for c in found.commands] == ["entrypoint_command"], found
    logs = await val(box.process.get_entrypoint_logs())
    assert isinstance(logs.output, str)
    if found.commands[0].exit_code is None:
        # The image's own command idles: whoever follows it is let go when it ends.
        following = asyncio.create_task(box.process.get_entrypoint_logs_async(lambda _: None, lambda _: None))
        await val(box.process.exec("kill $(pgrep -o -x sleep)"))
        await asyncio.wait_for(following, 10)
    said = []
    await asyncio.wait_for(box.process.get_entrypoint_logs_async(said.append, said.append), 10)
    assert "".join(said) == (await val(box.process.get_entrypoint_logs())).output
    for wrong in (
        lambda: box.process.delete_session("entrypoint"),
        lambda: box.process.create_session("entrypoint"),
        lambda: box.process.execute_session_command("entrypoint", SessionExecuteRequest(command="true")),
    ):
        with raises(DaytonaError, 400):
            await val(wrong())
