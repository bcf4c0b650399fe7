"""Language servers of the image: symbols and completions of Python and TypeScript."""
from daytona import DaytonaBadRequestError, DaytonaError
from daytona.common.lsp_server import LspCompletionPosition
from kit import check, eventually, raises, unique, val

LSP = "/lsp"
PYTHON = b'class Greeter:\n    def greet(self, name):\n        return "hi " + name\n\n\ndef main():\n    Greeter().greet("x")\n'
TYPESCRIPT = b'export class Greeter {\n  greet(name: string) {\n    return "hi " + name\n  }\n}\nnew Greeter().greet("x")\n'


async def project(box, language, name, content):
    """A started server for a relative folder with one file in it, and the file's path in it."""
    folder = unique(language)
    await val(box.fs.create_folder(folder, "755"))
    await val(box.fs.upload_file(content, f"{folder}/{name}"))
    server = await val(box.sandbox.create_lsp_server(language, folder))
    await val(server.start())
    return server, f"{folder}/{name}"


def names(symbols):
    return {symbol.name.split("(")[0] for symbol in symbols}


async def symbols_and_completions(box, server, path, position):
    await val(server.did_open(path))
    document = await val(server.document_symbols(path))
    assert {"Greeter", "greet"} <= names(document), document
    one = next(symbol for symbol in document if symbol.name == "Greeter")
    assert one.kind == 5 and one.location.uri.endswith(path), one
    assert one.location.range.start.line == 0, one

    async def found():
        return "Greeter" in names(await val(server.sandbox_symbols("Greeter")))

    await eventually("the workspace knows the class", found)
    assert names(await val(server.workspace_symbols("Gree"))) >= {"Greeter"}
    completions = await val(server.completions(path, position))
    assert "greet" in {item.label.split("(")[0] for item in completions.items}, completions.items[:5]
    assert isinstance(completions.is_incomplete, bool)
    await val(server.did_close(path))


@check(LSP)
async def lsp_python(box):
    server, path = await project(box, "python", "sample.py", PYTHON)
    await symbols_and_completions(box, server, path, LspCompletionPosition(line=6, character=15))
    await val(server.start())
    await val(server.stop())
    with raises(DaytonaError):
        await val(server.document_symbols(path))


@check(LSP)
async def lsp_typescript(box):
    server, path = await project(box, "typescript", "sample.ts", TYPESCRIPT)
    await symbols_and_completions(box, server, path, LspCompletionPosition(line=5, character=14))
    await val(server.stop())


@check(LSP)
async def lsp_javascript(box):
    content = b'class Greeter {\n  greet() {}\n}\nnew Greeter().greet()\n'
    server, path = await project(box, "javascript", "sample.js", content)
    await val(server.did_open(path))
    assert "Greeter" in names(await val(server.document_symbols(path)))
    await val(server.stop())


@check(LSP)
async def lsp_with_a_syntax_error_and_zero_positions(box):
    server, path = await project(box, "python", "broken.py", b"class Greeter:\n    def greet(self):\n        return (\n")
    await val(server.did_open(path))
    assert isinstance(await val(server.document_symbols(path)), list)
    answer = await val(server.completions(path, LspCompletionPosition(line=0, character=0)))
    assert isinstance(answer.items, list)
    await val(server.stop())


@check(LSP)
async def lsp_failures(box):
    server = await val(box.sandbox.create_lsp_server("python", unique("unstarted")))
    with raises(DaytonaBadRequestError, 400):
        await val(server.document_symbols("x.py"))
    server, path = await project(box, "python", "sample.py", PYTHON)
    with raises(DaytonaBadRequestError, 400):
        await val(server.did_open(path + ".absent"))
    await val(server.stop())
    with raises(DaytonaError):
        await val(server.stop())
