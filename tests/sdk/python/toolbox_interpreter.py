"""The code interpreter: state that stays, contexts apart, errors and time limits."""
import asyncio

from daytona import DaytonaError, DaytonaNotFoundError, DaytonaTimeoutError
from kit import check, raises, val

INTERPRETER = "/process/interpreter"


@check(INTERPRETER)
async def interpreter_keeps_variables(box):
    run = box.interpreter.run_code
    first = await val(run("x = 20\ndef double(n):\n    return 2 * n"))
    assert (first.stdout, first.stderr, first.error) == ("", "", None), first
    assert (await val(run("print(double(x) + 2)"))).stdout == "42\n"
    assert (await val(run("1 + 1"))).stdout == "", "the last expression is not echoed"


@check(INTERPRETER)
async def interpreter_streams(box):
    out, err = [], []
    result = await val(
        box.interpreter.run_code(
            "import sys, os\nfor n in range(3):\n    print('o', n)\nprint('e', file=sys.stderr)\n"
            "print(os.environ['GREETING'])\nos.system('echo from a child')",
            on_stdout=lambda message: out.append(message.output),
            on_stderr=lambda message: err.append(message.output),
            envs={"GREETING": "hi"},
        )
    )
    assert "".join(out) == result.stdout and "".join(err) == result.stderr == "e\n", (out, err)
    assert result.stdout.startswith("o 0\no 1\no 2\nhi\n"), result.stdout
    after = await val(box.interpreter.run_code("import os; print('GREETING' in os.environ)"))
    assert after.stdout == "False\n", "the environment of one execution ends with it"
    long = await val(box.interpreter.run_code("print('x' * 300000)"))
    assert len(long.stdout) == 300_001


@check(INTERPRETER)
async def interpreter_errors(box):
    seen = []
    result = await val(box.interpreter.run_code("print('before')\nraise ValueError('bad')", on_error=seen.append))
    assert result.stdout == "before\n" and result.error.name == "ValueError" and result.error.value == "bad", result
    assert "line 2" in result.error.traceback and seen[0].name == "ValueError"
    assert (await val(box.interpreter.run_code("a b"))).error.name == "SyntaxError"
    assert (await val(box.interpreter.run_code("raise SystemExit(1)"))).error is None
    assert (await val(box.interpreter.run_code("print('on')"))).stdout == "on\n", "it goes on"


@check(INTERPRETER)
async def interpreter_contexts_are_apart(box):
    contexts = [await val(box.interpreter.create_context()), await val(box.interpreter.create_context(cwd="/tmp"))]
    try:
        assert contexts[0].id != contexts[1].id and contexts[1].cwd == "/tmp", contexts
        assert contexts[0].language == "python" and contexts[0].active
        for number, context in enumerate(contexts):
            await val(box.interpreter.run_code(f"mine = {number}", context=context))
        for number, context in enumerate(contexts):
            seen = await val(box.interpreter.run_code("print(mine)", context=context))
            assert seen.stdout == f"{number}\n"
        assert (await val(box.interpreter.run_code("mine"))).error.name == "NameError"
        where = await val(box.interpreter.run_code("import os; print(os.getcwd())", context=contexts[1]))
        assert where.stdout == "/tmp\n"
        listed = {context.id for context in await val(box.interpreter.list_contexts())}
        assert listed == {context.id for context in contexts}, "and never the default one"
    finally:
        for context in contexts:
            await val(box.interpreter.delete_context(context))
    assert await val(box.interpreter.list_contexts()) == []
    with raises(DaytonaNotFoundError, 404):
        await val(box.interpreter.delete_context(contexts[0]))
    with raises(DaytonaError):
        await val(box.interpreter.run_code("1", context=contexts[0]))


@check(INTERPRETER)
async def interpreter_timeout(box):
    await val(box.interpreter.run_code("before = 'kept'"))
    with raises(DaytonaTimeoutError):
        await val(box.interpreter.run_code("import time; time.sleep(60)", timeout=1))
    assert (await val(box.interpreter.run_code("print(before)"))).stdout == "kept\n", "an interrupted context goes on"
    with raises(DaytonaError):
        await val(box.interpreter.run_code("1", timeout=-1))


@check(INTERPRETER)
async def interpreter_runs_in_order(box):
    if not box.is_async:
        return
    runs = [box.interpreter.run_code(f"print({n})") for n in range(10)]
    assert [run.stdout for run in await asyncio.gather(*runs)] == [f"{n}\n" for n in range(10)]
