"""process.code_run: three languages and the charts of matplotlib."""
import base64
import json

from daytona import CodeRunParams, CreateSandboxFromSnapshotParams
from daytona.common.charts import BarChart, BoxAndWhiskerChart, CompositeChart, LineChart, PieChart, ScatterChart
from kit import check, val

CODE = "/process/code-run"


@check(CODE)
async def python_code(box):
    run = box.process.code_run
    assert (await val(run("print(6 * 7)"))).result == "42\n"
    many = await val(run("import json\nfor n in range(3):\n    print(json.dumps({'n': n}))"))
    assert [json.loads(line)["n"] for line in many.result.splitlines()] == [0, 1, 2]
    merged = await val(run("import sys; print('out'); print('err', file=sys.stderr)"))
    assert merged.exit_code == 0 and "out" in merged.result and "err" in merged.result
    assert merged.artifacts.stdout == merged.result and merged.artifacts.charts == []
    wrong = await val(run("x = = 1"))
    assert wrong.exit_code == 1 and "SyntaxError" in wrong.result
    assert "ValueError: x" in (await val(run("raise ValueError('x')"))).result
    assert (await val(run("raise SystemExit(7)"))).exit_code == 7
    assert (await val(run("try:\n    input()\nexcept EOFError:\n    print('end')"))).result == "end\n"


@check(CODE)
async def python_arguments_and_environment(box):
    params = CodeRunParams(argv=["one", "two words", "$HOME;'"], env={"COLOUR": "blue"})
    done = await val(box.process.code_run("import sys, os; print(sys.argv[1:], os.environ['COLOUR'])", params))
    assert done.result == "['one', 'two words', \"$HOME;'\"] blue\n", done.result
    await refused(400, lambda: box.process.code_run("pass", CodeRunParams(env={"1x": "y"})))
    await refused(408, lambda: box.process.code_run("import time; time.sleep(60)", timeout=1))


async def refused(status, call):
    """This one method lets through the error of the client below it."""
    try:
        await val(call())
    except Exception as error:  # noqa: BLE001
        assert getattr(error, "status_code", None) == status or getattr(error, "status", None) == status, error
        return
    raise AssertionError(f"nothing was raised; {status} expected")


DRAW = """
import matplotlib.pyplot as plt
{}
plt.show()
"""


async def charts(box, body):
    done = await val(box.process.code_run(DRAW.format(body)))
    assert done.exit_code == 0, done.result
    assert "dtn_artifact" not in done.result, done.result[:300]
    for chart in done.artifacts.charts:
        assert base64.b64decode(chart.png).startswith(b"\x89PNG"), "each has its picture"
    return done


@check(CODE)
async def chart_line(box):
    done = await charts(box, "print('before', end='')\nplt.plot([1, 2, 3], [1, 4, 9.5], label='squares')\nplt.title('T')\n"
                             "plt.xlabel('x'); plt.ylabel('y'); plt.yscale('log')")
    (chart,) = done.artifacts.charts
    assert done.result == "before", repr(done.result)
    assert isinstance(chart, LineChart) and chart.title == "T", chart
    assert (chart.x_label, chart.y_label, chart.x_scale, chart.y_scale) == ("x", "y", "linear", "log")
    assert chart.x_ticks and len(chart.x_ticks) == len(chart.x_tick_labels)
    assert chart.elements[0].label == "squares" and chart.elements[0].points == [[1, 1], [2, 4], [3, 9.5]]


@check(CODE)
async def chart_scatter_and_dates(box):
    done = await charts(box, "import datetime\nplt.scatter([1, 2], [3, 4])\nplt.show()\n"
                             "plt.plot([datetime.date(2026, 1, n) for n in (1, 2, 3)], [1, 2, 3])")
    scatter, dates = done.artifacts.charts
    assert isinstance(scatter, ScatterChart) and scatter.elements[0].points == [[1, 3], [2, 4]], scatter.elements
    assert isinstance(dates, LineChart) and dates.x_scale == "datetime", dates
    assert len(dates.elements[0].points) == 3
    (gap,) = (await charts(box, "plt.plot([1, 2, 3], [1, float('nan'), 3])")).artifacts.charts
    assert gap.elements[0].points == [[1, 1], [3, 3]], "what JSON has no number for is left out"


@check(CODE)
async def chart_bar(box):
    done = await charts(box, "plt.bar(['a', 'b'], [1, 2.5], label='upright')\nplt.show()\n"
                             "plt.barh(['c', 'd'], [3, 4])\nplt.xlabel('amount')")
    upright, lying = done.artifacts.charts
    assert isinstance(upright, BarChart) and isinstance(lying, BarChart)
    assert [(e.label, e.group, e.value) for e in upright.elements] == [("a", "upright", "1"), ("b", "upright", "2.5")]
    assert [(e.label, e.value) for e in lying.elements] == [("c", "3"), ("d", "4")]
    assert lying.y_label == "amount", "axes of a chart drawn the other way round are swapped"


@check(CODE)
async def chart_pie_and_boxes(box):
    done = await charts(box, "plt.pie([1, 3], labels=['small', 'large'], autopct='%d')\nplt.show()\n"
                             "plt.boxplot([[1, 2, 3, 4, 50], [2, 3, 4]], labels=['p', 'q'])")
    pie, boxes = done.artifacts.charts
    assert isinstance(pie, PieChart) and [e.label for e in pie.elements] == ["small", "large"], pie.elements
    assert [round(e.angle) for e in pie.elements] == [90, 270] and pie.elements[0].radius == 1
    assert isinstance(boxes, BoxAndWhiskerChart) and [e.label for e in boxes.elements] == ["p", "q"]
    first = boxes.elements[0]
    assert (first.min, first.median, first.max, first.outliers) == (1, 3, 4, [50]), first


@check(CODE)
async def chart_composite(box):
    done = await charts(box, "f, (a, b) = plt.subplots(1, 2)\na.plot([1, 2], [1, 2])\na.set_title('left')\n"
                             "b.bar(['x'], [1])\nf.suptitle('both')")
    (chart,) = done.artifacts.charts
    assert isinstance(chart, CompositeChart) and chart.title == "both"
    assert [(e.type, e.title) for e in chart.elements] == [("line", "left"), ("bar", None)], chart.elements


@check(CODE)
async def chart_program_that_fails(box):
    done = await val(box.process.code_run("import matplotlib.pyplot as plt\nprint('said')\nplt.plot([1])\n1 / 0"))
    assert done.exit_code == 1 and "ZeroDivisionError" in done.result and "line 4" in done.result, done.result
    assert "said" in done.result and "_infield" not in done.result and done.artifacts.charts == []


@check(CODE)
async def other_languages(box):
    for language in ("javascript", "typescript"):
        sandbox = await val(box.client.create(CreateSandboxFromSnapshotParams(language=language)))
        try:
            run = sandbox.process.code_run
            typed = ": number" if language == "typescript" else ""
            done = await val(run(f"const n{typed} = 6 * 7; console.log(n, process.argv.slice(1), process.env.C)",
                                 CodeRunParams(argv=["a b", "c"], env={"C": "d"})))
            assert done.result == "42 [ 'a b', 'c' ] d\n" and done.exit_code == 0, done
            assert (await val(run("console.error('e'); process.exit(3)"))).exit_code == 3
            failed = await val(run("throw new Error('thrown here')"))
            assert failed.exit_code != 0 and "thrown here" in failed.result
            assert (await val(run("let x = ;"))).exit_code != 0
        finally:
            await val(sandbox.delete())
