"""fs: every method, single and many files, streams and signed addresses."""
import hashlib
import io
import os
import tempfile
import threading
import urllib.error
import urllib.request

from daytona import (
    DaytonaBadRequestError,
    DaytonaConflictError,
    DaytonaError,
    DaytonaNotFoundError,
    FileDownloadRequest,
    FileUpload,
)
from daytona.common.errors import DaytonaFileAccessDeniedError, DaytonaFileNotFoundError
from kit import check, eventually, pieces, raises, unique, val

FILES = "/files"
ALL_BYTES = bytes(range(256)) * 4


@check(FILES)
async def folders_and_info(box):
    name = unique("deep")
    await val(box.fs.create_folder(f"{name}/er/est", "755"))
    await val(box.fs.create_folder(f"{name}/er/est", "0700"))
    info = await val(box.fs.get_file_info(f"{name}/er"))
    assert (info.name, info.is_dir, info.permissions, info.mode) == ("er", True, "0755", "drwxr-xr-x"), info
    assert (info.owner, info.group) == ("1000", "1000") and info.modified_at, info
    await val(box.fs.create_folder(f"{name}/private", "700"))
    assert (await val(box.fs.get_file_info(f"{name}/private"))).permissions == "0700"
    tmp = await val(box.fs.get_file_info("/tmp"))
    assert tmp.mode == "dtrwxrwxrwx" and tmp.permissions == "0777", tmp
    await val(box.fs.upload_file(b"", f"{name}/file"))
    with raises(DaytonaBadRequestError, 400):
        await val(box.fs.create_folder(f"{name}/file/below", "755"))
    with raises(DaytonaBadRequestError, 400):
        await val(box.fs.create_folder(f"{name}/other", "9x"))
    with raises(DaytonaFileNotFoundError, 404):
        await val(box.fs.get_file_info(f"{name}/absent"))
    with raises(DaytonaFileAccessDeniedError, 403):
        await val(box.fs.get_file_info("/root/secret"))


@check(FILES)
async def listing(box):
    name = unique("list")
    await box.sh(f"mkdir -p {name}/b/c && cd {name} && touch a .hidden b/c/d && ln -s b link && ln -s nowhere broken")
    found = {entry.name: entry for entry in await val(box.fs.list_files(name))}
    assert list(found) == [".hidden", "a", "b", "link"], "sorted, hidden ones too, broken links not"
    assert found["link"].is_dir and not found["a"].is_dir and found["b"].path == f"{name}/b", found["b"]
    deep = [entry.path for entry in await val(box.fs.list_files(name, depth=3))]
    assert f"{name}/b/c/d" in deep and f"{name}/b/c" in deep, deep
    await val(box.fs.create_folder(f"{name}/empty", "755"))
    assert await val(box.fs.list_files(f"{name}/empty")) == []
    assert any(entry.name == name for entry in await val(box.fs.list_files(".")))
    with raises(DaytonaFileNotFoundError, 404):
        await val(box.fs.list_files(f"{name}/absent"))
    with raises(DaytonaFileAccessDeniedError, 403):
        await val(box.fs.list_files("/root"))
    with raises(DaytonaBadRequestError, 400):
        await val(box.fs.list_files(f"{name}/a"))
    with raises(DaytonaError):
        await val(box.fs.list_files(name, depth=0))


@check(FILES)
async def single_upload_and_download(box):
    name = unique("up")
    path = f"{name}/new/bytes.bin"
    await val(box.fs.upload_file(ALL_BYTES, path))
    assert await val(box.fs.download_file(path)) == ALL_BYTES
    info = await val(box.fs.get_file_info(path))
    assert (info.size, info.permissions, info.is_dir) == (len(ALL_BYTES), "0644", False), info
    await box.sh(f"chmod 600 {path}")
    await val(box.fs.upload_file(b"other", path))
    assert (await val(box.fs.get_file_info(path))).permissions in ("0600", "0644")
    await val(box.fs.upload_file(b"", f"{name}/empty"))
    assert await val(box.fs.download_file(f"{name}/empty")) == b""
    with tempfile.TemporaryDirectory() as folder:
        source, back = os.path.join(folder, "source"), os.path.join(folder, "back")
        with open(source, "wb") as file:
            file.write(ALL_BYTES)
        await val(box.fs.upload_file(source, f"{name}/from-disk"))
        await val(box.fs.download_file(f"{name}/from-disk", back))
        with open(back, "rb") as file:
            assert file.read() == ALL_BYTES
    with raises(DaytonaFileNotFoundError):
        await val(box.fs.download_file(f"{name}/absent"))
    with raises(DaytonaError):
        await val(box.fs.download_file(name))


@check(FILES)
async def upload_follows_links_and_leaves_nothing(box):
    name = unique("links")
    await box.sh(f"mkdir {name} && cd {name} && echo old > target && ln -s target link && ln -s later dangling && mkdir folder")
    await val(box.fs.upload_file(b"new\n", f"{name}/link"))
    await val(box.fs.upload_file(b"made\n", f"{name}/dangling"))
    assert await box.sh(f"cd {name}; cat target later; readlink link dangling") == "new\nmade\ntarget\nlater\n"
    with raises(DaytonaError, 400):
        await val(box.fs.upload_file(b"x", f"{name}/folder"))
    left = (await box.sh(f"ls -A {name}")).split()
    assert left == ["dangling", "folder", "later", "link", "target"], left


@check(FILES)
async def unusual_names(box):
    name = unique("names")
    # The async client's HTTP library refuses a newline itself.
    names = ["with space", "quote\"'\\", "ünïcödé 字", "100%25", "semi;colon", "-dash", "a&b=c?d#e"]
    names += [] if box.is_async else ["new\nline"]
    for odd in names:
        await val(box.fs.upload_file(odd.encode(), f"{name}/{odd}"))
        assert await val(box.fs.download_file(f"{name}/{odd}")) == odd.encode(), odd
        assert (await val(box.fs.get_file_info(f"{name}/{odd}"))).name == odd
    assert len(await val(box.fs.list_files(name))) == len(names)


@check(FILES)
async def many_at_once(box):
    name = unique("bulk")
    contents = {f"{name}/{n}.txt": f"file {n}\n".encode() * (n + 1) for n in range(25)}
    await val(box.fs.upload_files([FileUpload(source=data, destination=path) for path, data in contents.items()]))
    asked = [FileDownloadRequest(source=path) for path in contents]
    asked[3:3] = [FileDownloadRequest(source=f"{name}/absent"), FileDownloadRequest(source=name)]
    answers = await val(box.fs.download_files(asked))
    assert [answer.source for answer in answers] == [request.source for request in asked]
    for answer in answers:
        if answer.source in contents:
            assert answer.result == contents[answer.source], answer
        else:
            assert answer.error and answer.result is None, answer
    mixed = [FileUpload(source=b"good", destination=f"{name}/good"), FileUpload(source=b"bad", destination=name)]
    with raises(DaytonaError) as caught:
        await val(box.fs.upload_files(mixed))
    assert name in str(caught.error), caught.error
    assert await val(box.fs.download_file(f"{name}/good")) == b"good", "the others are written"


@check(FILES)
async def streams(box):
    name, data, seen = unique("stream"), os.urandom(3 << 20), []
    await val(box.fs.upload_file_stream(io.BytesIO(data), name, on_progress=lambda p: seen.append(p.bytes_sent)))
    assert seen and seen[-1] == len(data), seen[-3:]
    digest = (await box.sh(f"sha256sum {name}")).split()[0]
    assert digest == hashlib.sha256(data).hexdigest()
    told = []
    stream = box.fs.download_file_stream(name, on_progress=lambda p: told.append((p.bytes_received, p.total_bytes)))
    assert b"".join(await pieces(stream)) == data
    assert told[-1] == (len(data), len(data)), told[-1]
    with raises(DaytonaNotFoundError):
        await pieces(box.fs.download_file_stream(name + ".absent"))


@check(FILES)
async def a_cancelled_upload_leaves_nothing(box):
    name, cancel = unique("cancelled"), threading.Event()
    await val(box.fs.create_folder(name, "755"))

    def progress(told):
        if told.bytes_sent > 1 << 20:
            cancel.set()

    with raises(DaytonaError):
        await val(box.fs.upload_file_stream(io.BytesIO(bytes(20 << 20)), f"{name}/file", on_progress=progress, cancel_event=cancel))

    async def empty():
        return await box.sh(f"ls -A {name}") == ""

    await eventually("nothing is left of it", empty)


@check(FILES)
async def find_search_replace(box):
    name = unique("find")
    await val(box.fs.create_folder(f"{name}/sub", "755"))
    for path, text in {"a.py": "one\nneedle [x]\nthree", "sub/b.py": "needle needle\n", "c.txt": "nothing"}.items():
        await val(box.fs.upload_file(text.encode(), f"{name}/{path}"))
    await val(box.fs.upload_file(b"\0needle", f"{name}/binary"))
    found = await val(box.fs.find_files(name, "needle"))
    assert sorted((m.file, m.line, m.content) for m in found) == [
        (f"{name}/a.py", 2, "needle [x]"),
        (f"{name}/sub/b.py", 1, "needle needle"),
    ], found
    assert [m.line for m in await val(box.fs.find_files(f"{name}/a.py", "[x]"))] == [2], "literal, and a file may be searched"
    assert await val(box.fs.find_files(f"{name}/absent", "x")) == []
    assert (await val(box.fs.search_files(name, "*.py"))).files == [f"{name}/a.py", f"{name}/sub/b.py"]
    assert (await val(box.fs.search_files(name, "sub"))).files == [f"{name}/sub"]
    assert (await val(box.fs.search_files(name, "[ab].?y"))).files == [f"{name}/a.py", f"{name}/sub/b.py"]
    assert (await val(box.fs.search_files(name, "[broken"))).files == []
    files = [f"{name}/a.py", f"{name}/absent", f"{name}/sub/b.py", f"{name}/c.txt"]
    results = await val(box.fs.replace_in_files(files, "needle", "pin"))
    assert [(r.file, bool(r.success)) for r in results] == list(zip(files, (True, False, True, True))), results
    assert results[1].error
    assert await val(box.fs.download_file(f"{name}/sub/b.py")) == b"pin pin\n"


@check(FILES)
async def move_permissions_delete(box):
    name = unique("move")
    await box.sh(f"mkdir -p {name}/full/x && cd {name} && echo a > a && echo b > b && ln -s a link && ln -s nowhere broken")
    await val(box.fs.move_files(f"{name}/a", f"{name}/moved"))
    with raises(DaytonaConflictError, 409):
        await val(box.fs.move_files(f"{name}/b", f"{name}/moved"))
    with raises(DaytonaConflictError, 409):
        await val(box.fs.move_files(f"{name}/b", f"{name}/full"))
    for source, destination in ((f"{name}/absent", f"{name}/n"), (f"{name}/b", f"{name}/no/such")):
        with raises(DaytonaNotFoundError, 404):
            await val(box.fs.move_files(source, destination))
    await val(box.fs.move_files(f"{name}/full", f"{name}/renamed"))
    await val(box.fs.set_file_permissions(f"{name}/b", mode="640", owner="daytona", group="daytona"))
    info = await val(box.fs.get_file_info(f"{name}/b"))
    assert (info.permissions, info.mode, info.owner) == ("0640", "-rw-r-----", "1000"), info
    with raises(DaytonaBadRequestError, 400):
        await val(box.fs.set_file_permissions(f"{name}/b", owner="nobody-of-this-name"))
    with raises(DaytonaFileNotFoundError, 404):
        await val(box.fs.set_file_permissions(f"{name}/absent", mode="600"))
    with raises(DaytonaFileAccessDeniedError, 403):
        await val(box.fs.set_file_permissions("/etc/passwd", mode="666"))
    with raises(DaytonaBadRequestError, 400):
        await val(box.fs.delete_file(f"{name}/renamed"))
    await val(box.fs.delete_file(f"{name}/broken"))
    await val(box.fs.delete_file(f"{name}/link"))
    await val(box.fs.delete_file(f"{name}/renamed", recursive=True))
    with raises(DaytonaFileNotFoundError, 404):
        await val(box.fs.delete_file(f"{name}/renamed"))
    assert sorted((await box.sh(f"ls -A {name}")).split()) == ["b", "moved"]


def fetch(url, data=None):
    with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=30) as reply:
        return reply.status, reply.read()


def refused(url):
    try:
        fetch(url)
    except urllib.error.HTTPError as error:
        assert error.code == 401, error
    else:
        raise AssertionError(f"{url} is served")


@check("/sandbox/{sandboxId}/signing-key")
async def signed_addresses(box):
    if not hasattr(box.sandbox, "download_url"):
        return
    name = unique("signed file")
    await val(box.fs.upload_file(ALL_BYTES, name))
    url = await val(box.sandbox.download_url(name))
    assert fetch(url) == (200, ALL_BYTES)
    upload = await val(box.sandbox.upload_url(f"{name}.up"))
    assert fetch(upload, b"raw body")[0] == 200
    assert await val(box.fs.download_file(f"{name}.up")) == b"raw body"
    for wrong in (url.replace("v1_", "v1_A"), url.replace("signed", "other"), url.split("&signature")[0]):
        refused(wrong)
    await val(box.sandbox.rotate_signing_key())
    refused(url)
    assert fetch(await val(box.sandbox.download_url(name)))[0] == 200
