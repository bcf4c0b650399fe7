"""process.exec, the sandbox's folders, environment, ports and numbers."""
from daytona import DaytonaBadRequestError, DaytonaTimeoutError
from kit import check, eventually, raises, unbuilt, val


@check("/work-dir")
async def folders(box):
    work, home = await val(box.sandbox.get_work_dir()), await val(box.sandbox.get_user_home_dir())
    assert await val(box.sandbox.get_user_root_dir()) == home
    assert work.startswith("/") and home == "/home/daytona", (work, home)
    assert (await val(box.process.exec("pwd", cwd=work))).result.strip() == work
    await val(box.fs.upload_file(b"here", "where.txt"))
    assert await val(box.fs.download_file(f"{work}/where.txt")) == b"here", "relative means below the work dir"
    assert await box.sh("cat where.txt") == "here"


@check("/process/execute")
async def exec_exit_codes_and_output(box):
    run = box.process.exec
    assert (await val(run("exit 42"))).exit_code == 42
    both = await val(run("echo out; echo err >&2"))
    assert both.exit_code == 0 and sorted(both.result.split()) == ["err", "out"], both.result
    assert both.artifacts.stdout == both.result and both.artifacts.charts == []
    assert (await val(run("kill -9 $$"))).exit_code in (137, -1)
    absent = await val(run("ls /does/not/exist"))
    assert absent.exit_code != 0 and "No such file" in absent.result
    assert (await val(run("printf 'no newline'"))).result == "no newline"
    assert (await val(run("printf '\\377'"))).result == "\ufffd", "bytes that are no UTF-8 are shown as such"


@check("/process/execute")
async def exec_surroundings(box):
    run = box.process.exec
    assert (await val(run("echo $GREETING", env={"GREETING": "hi 'there'"}))).result == "hi 'there'\n"
    assert (await val(run("pwd", cwd="/tmp"))).result == "/tmp\n"
    assert (await val(run("cat <<EOF\na\n$((1 + 1))\nEOF"))).result == "a\n2\n"
    assert (await val(run("true", cwd="/does/not/exist"))).exit_code == -1
    with raises(DaytonaBadRequestError, 400):
        await val(run("true", env={"not a name": "x"}))
    with raises(DaytonaBadRequestError, 400):
        await val(run("   "))


@check("/process/execute")
async def exec_timeout_kills_everything(box):
    with raises(DaytonaTimeoutError) as caught:
        await val(box.process.exec("sleep 3001 & sleep 3001", timeout=1))
    assert "timeout" in str(caught.error).lower(), caught.error
    assert await box.sh("pgrep -f '[s]leep 3001' || echo none") == "none\n", "the timed-out command lives on"


@check("/process/execute")
async def exec_large_command_and_output(box):
    long = "x" * 300_000
    assert await box.sh(f"printf %s '{long}' | wc -c") == "300000\n"
    assert len(await box.sh("head -c 5000000 /dev/zero | tr '\\0' y")) == 5_000_000


@check("/process/execute")
async def exec_background_child_does_not_hold_the_answer(box):
    await box.sh("nohup sleep 3002 >/dev/null 2>&1 & echo $! > /tmp/pid")
    assert await box.sh("kill -0 $(cat /tmp/pid) && echo alive") == "alive\n"
    await box.sh("kill $(cat /tmp/pid)")
    await eventually("no zombie stays", lambda: no_zombie(box))


async def no_zombie(box):
    done = await val(box.process.exec("ps -eo stat= | grep -c '^Z'"))
    return done.result.strip() == "0"


@check("/env")
async def environment_of_later_processes(box):
    if not hasattr(box.sandbox, "update_env"):
        return
    await val(box.sandbox.update_env({"LATER": "yes", "OTHER": "1"}))
    assert await box.sh("echo $LATER$OTHER") == "yes1\n"
    await val(box.sandbox.update_env({"LATER": "no"}, unset=["OTHER"]))
    assert await box.sh("echo $LATER${OTHER-gone}") == "nogone\n"
    await val(box.sandbox.update_env({}, unset=["LATER"]))


@check("/system/metrics")
async def metrics_now(box):
    if not hasattr(box.sandbox, "get_metrics_latest"):
        return
    seen = await val(box.sandbox.get_metrics_latest())
    assert 0 <= seen.cpu_used_pct <= 100, seen
    assert seen.cpu_count == 1 and seen.mem_total == 1 << 30, seen
    assert 0 < seen.mem_used <= seen.mem_total and 0 < seen.disk_used < seen.disk_total, seen


@check("/port")
async def ports(box):
    await box.sh("nohup python3 -m http.server 8321 -d /tmp >/dev/null 2>&1 &")
    listen = "python3 -c \"import socket; socket.create_connection(('127.0.0.1', 8321), 1)\" && echo open || true"

    async def listening():
        return "open" in (await val(box.process.exec(listen))).result

    await eventually("the server of the sandbox listens", listening)
    # No method of the SDK asks for ports; its generated client does.
    info = port_api(box)
    await eventually("the port is listed", lambda: listed(info))
    assert (await val(info.is_port_in_use(8321))).is_in_use is True
    assert (await val(info.is_port_in_use(8322))).is_in_use is False
    await box.sh("pkill -f '[h]ttp.server 8321'")


async def listed(info):
    return 8321 in (await val(info.get_ports())).ports


def port_api(box):
    if box.is_async:
        from daytona_toolbox_api_client_async import PortApi
    else:
        from daytona_toolbox_api_client import PortApi
    return PortApi(box.process._api_client.api_client)


def info_api(box):
    if box.is_async:
        from daytona_toolbox_api_client_async import InfoApi
    else:
        from daytona_toolbox_api_client import InfoApi
    return InfoApi(box.process._api_client.api_client)


@check("/version")
async def version(box):
    answer = await val(info_api(box).get_version())
    assert answer, "the agent says its version"


@check("/computeruse")
async def computer_use_says_that_it_is_not_there(box):
    try:
        await val(box.sandbox.computer_use.get_status())
    except Exception as error:  # noqa: BLE001
        assert unbuilt(error), error
        return
    raise AssertionError("computer use works: then this check has to grow")
