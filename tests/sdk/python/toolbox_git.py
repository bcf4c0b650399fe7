"""git: every method, on repositories of a server of the test."""
from daytona import (
    DaytonaBadRequestError,
    DaytonaConflictError,
    DaytonaError,
    DaytonaNotFoundError,
)
from daytona.common.errors import (
    DaytonaGitAuthFailedError,
    DaytonaGitBranchExistsError,
    DaytonaGitBranchNotFoundError,
    DaytonaGitDirtyWorktreeError,
    DaytonaGitPushRejectedError,
    DaytonaGitRemoteRejectedError,
    DaytonaGitRepoNotFoundError,
    DaytonaGitTransportFailedError,
)
from kit import check, environment, raises, unique, val

GIT = "/git"
WHO = ("Tester", "tester@example.org")


async def cloned(box, **options):
    path = unique("clone")
    await val(box.git.clone(environment("GIT_URL"), path, **options))
    return path


async def committed(box, path, file="new.txt", content=b"new\n"):
    await val(box.fs.upload_file(content, f"{path}/{file}"))
    await val(box.git.add(path, [file]))
    return (await val(box.git.commit(path, f"change {file}", *WHO))).sha


def states(status):
    return {entry.name: (str(getattr(entry.staging, "value", entry.staging)),
                         str(getattr(entry.worktree, "value", entry.worktree))) for entry in status.file_status}


@check(GIT)
async def clone_and_status(box):
    path = await cloned(box)
    status = await val(box.git.status(path))
    assert (status.current_branch, status.file_status) == ("main", []), status
    assert status.branch_published and (status.ahead, status.behind) == (0, 0), status
    for file, content in {"staged.txt": b"1", "both.txt": b"1", "untracked.txt": b"1"}.items():
        await val(box.fs.upload_file(content, f"{path}/{file}"))
    await val(box.git.add(path, ["staged.txt", "both.txt"]))
    await val(box.fs.upload_file(b"2", f"{path}/both.txt"))
    await box.sh(f"rm {path}/README.md")
    assert states(await val(box.git.status(path))) == {
        "staged.txt": ("Added", "Unmodified"),
        "both.txt": ("Added", "Modified"),
        "untracked.txt": ("Untracked", "Untracked"),
        "README.md": ("Unmodified", "Deleted"),
    }
    await val(box.git.add(path, ["."]))
    assert states(await val(box.git.status(path)))["README.md"] == ("Deleted", "Unmodified")
    with raises(DaytonaGitRepoNotFoundError, 404):
        await val(box.git.status("/tmp"))
    with raises(DaytonaConflictError, 409):
        await val(box.git.clone(environment("GIT_URL"), path))


@check(GIT)
async def clone_options(box):
    path = await cloned(box, branch="test", depth=1)
    assert (await val(box.git.status(path))).current_branch == "test"
    assert await box.sh(f"git -C {path} rev-list --count HEAD") == "1\n"
    first = (await box.sh(f"git -C {await cloned(box)} rev-list --max-parents=0 HEAD")).strip()
    path = await cloned(box, commit_id=first)
    status = await val(box.git.status(path))
    assert status.current_branch == "HEAD" and status.detached, status
    with raises(DaytonaNotFoundError, 404):
        await cloned(box, branch="absent")


@check(GIT)
async def clone_failures(box):
    url = environment("GIT_URL")
    with raises(DaytonaGitRepoNotFoundError, 404):
        await val(box.git.clone(url.replace("project.git", "absent.git"), unique("no")))
    with raises(DaytonaGitTransportFailedError, 502):
        await val(box.git.clone("http://127.0.0.1:9/x.git", unique("no")))
    private = environment("GIT_PRIVATE_URL")
    for words in ({}, {"username": "me", "password": "wrong"}):
        with raises(DaytonaGitAuthFailedError, 401) as caught:
            await val(box.git.clone(private, unique("no"), **words))
        assert "wrong" not in str(caught.error)
    path = unique("private")
    await val(box.git.clone(private, path, username="me", password="pass word"))
    await committed(box, path, unique("file"))
    await val(box.git.push(path, username="me", password="pass word"))
    await val(box.git.pull(path, username="me", password="pass word"))
    assert "pass" not in await box.sh(f"cat {path}/.git/config; cat ~/.git-credentials 2>/dev/null || true")
    with raises(DaytonaGitAuthFailedError, 401):
        await val(box.git.pull(path))


@check(GIT)
async def commit_and_history(box):
    path = await cloned(box)
    sha = await committed(box, path)
    assert len(sha) == 40
    with raises(DaytonaError):
        await val(box.git.commit(path, "nothing", *WHO))
    empty = await val(box.git.commit(path, "nothing", *WHO, allow_empty=True))
    log = await box.sh(f"git -C {path} log -2 --format='%H %an %ae %cn %s'")
    assert log == f"{empty.sha} Tester tester@example.org Tester nothing\n{sha} Tester tester@example.org Tester change new.txt\n"
    history = await val(git_api(box).get_commit_history(path))
    assert [commit.hash for commit in history][:2] == [empty.sha, sha]
    assert history[1].author == "Tester" and history[1].email == "tester@example.org" and "T" in history[1].timestamp
    with raises(DaytonaError):
        await val(box.git.add(path, ["absent.txt"]))


def git_api(box):
    return box.git._api_client


@check(GIT)
async def branches(box):
    path = await cloned(box)
    await val(box.fs.upload_file(b"kept", f"{path}/kept.txt"))
    await val(box.git.create_branch(path, "feature/one"))
    listed = await val(box.git.branches(path))
    assert sorted(listed.branches) == ["feature/one", "main"] and listed.current == "feature/one", listed
    assert states(await val(box.git.status(path))) == {"kept.txt": ("Untracked", "Untracked")}, "work in hand is kept"
    with raises(DaytonaGitBranchExistsError, 409):
        await val(box.git.create_branch(path, "main"))
    sha = await committed(box, path, "README.md", b"changed\n")
    await val(box.git.checkout_branch(path, "main"))
    await val(box.fs.upload_file(b"dirty\n", f"{path}/README.md"))
    with raises(DaytonaGitDirtyWorktreeError, 409):
        await val(box.git.checkout_branch(path, "feature/one"))
    await box.sh(f"git -C {path} checkout -q README.md")
    await val(box.git.checkout_branch(path, sha[:10]))
    assert (await val(box.git.status(path))).detached
    with raises(DaytonaGitBranchNotFoundError, 404):
        await val(box.git.checkout_branch(path, "absent"))
    await val(box.git.delete_branch(path, "feature/one"))
    assert (await val(box.git.branches(path))).branches == ["main"]
    with raises(DaytonaGitBranchNotFoundError, 404):
        await val(box.git.delete_branch(path, "absent"))


@check(GIT)
async def push_and_pull(box):
    path, other = await cloned(box), await cloned(box)
    name = unique("file")
    await committed(box, path, name)
    assert (await val(box.git.status(path))).ahead == 1
    await val(box.git.push(path))
    await val(box.git.push(path))
    await val(box.git.pull(other))
    assert await val(box.fs.download_file(f"{other}/{name}")) == b"new\n"
    await committed(box, path, name, b"mine\n")
    await val(box.git.push(path))
    await committed(box, other, name, b"theirs\n")
    with raises(DaytonaGitPushRejectedError, 409):
        await val(box.git.push(other))
    with raises(DaytonaConflictError, 409):
        await val(box.git.pull(other))
    await val(box.git.create_branch(path, unique("published")))
    branch = (await val(box.git.status(path))).current_branch
    assert not (await val(box.git.status(path))).branch_published
    await val(box.git.push(path, branch=branch, remote="origin", set_upstream=True))
    status = await val(box.git.status(path))
    assert status.branch_published and status.upstream == f"origin/{branch}", status
    await val(box.git.pull(path, branch=branch, remote="origin"))
    await box.sh(f"git -C {path} checkout -q --detach")
    with raises(DaytonaNotFoundError, 404):
        await val(box.git.push(path))


@check(GIT)
async def push_that_a_hook_declines(box):
    path = unique("declined")
    await val(box.git.clone(environment("GIT_URL").replace("project.git", "declining.git"), path))
    await committed(box, path)
    with raises(DaytonaGitRemoteRejectedError, 422):
        await val(box.git.push(path))


@check(GIT)
async def init_and_remotes(box):
    path, bare = unique("made"), unique("bare")
    await val(box.git.init(path, initial_branch="trunk"))
    await val(box.git.init(bare, bare=True))
    with raises(DaytonaConflictError, 409):
        await val(box.git.init(path))
    await committed(box, path)
    assert (await val(box.git.status(path))).current_branch == "trunk"
    assert (await val(box.git.remotes(path))).remotes == []
    url = environment("GIT_URL")
    await val(box.git.remote_add(path, "origin", url, fetch=True))
    assert "origin/main" in await box.sh(f"git -C {path} branch -r")
    with raises(DaytonaConflictError, 409):
        await val(box.git.remote_add(path, "origin", url))
    await val(box.git.remote_add(path, "origin", "http://me:secret@198.18.0.1/x.git", overwrite=True))
    listed = {remote.name: remote.url for remote in (await val(box.git.remotes(path))).remotes}
    assert listed == {"origin": "http://me@198.18.0.1/x.git"}, listed
    assert await val(box.git.remote_get(path, "origin")) == listed["origin"]
    assert await val(box.git.remote_get(path, "absent")) is None
    home = await val(box.sandbox.get_user_home_dir())
    await val(box.git.remote_add(path, "local", f"{home}/{bare}"))
    await val(box.git.push(path, remote="local"))
    assert "trunk" in await box.sh(f"git -C {bare} branch")


@check(GIT)
async def reset(box):
    path = await cloned(box)
    first = (await box.sh(f"git -C {path} rev-parse HEAD")).strip()
    await committed(box, path, "file", b"1\n")
    await committed(box, path, "file", b"2\n")
    await val(box.git.reset(path, mode="soft", target="HEAD~1"))
    assert states(await val(box.git.status(path))) == {"file": ("Modified", "Unmodified")}
    await val(box.git.reset(path))
    assert states(await val(box.git.status(path))) == {"file": ("Unmodified", "Modified")}
    await val(box.git.reset(path, mode="hard"))
    assert await val(box.fs.download_file(f"{path}/file")) == b"1\n"
    await val(box.fs.upload_file(b"3\n", f"{path}/file"))
    await val(box.fs.upload_file(b"3\n", f"{path}/README.md"))
    await val(box.git.add(path, ["."]))
    await val(box.git.reset(path, files=["file"]))
    assert states(await val(box.git.status(path))) == {
        "file": ("Unmodified", "Modified"), "README.md": ("Modified", "Unmodified")}
    await val(box.git.reset(path, mode="hard", target=first))
    assert (await box.sh(f"git -C {path} rev-parse HEAD")).strip() == first
    with raises(DaytonaBadRequestError, 400):
        await val(box.git.reset(path, mode="strange"))
    with raises(DaytonaNotFoundError, 404):
        await val(box.git.reset(path, target="absent"))


@check(GIT)
async def restore(box):
    path = await cloned(box)
    await committed(box, path, "file", b"1\n")
    await val(box.fs.upload_file(b"2\n", f"{path}/file"))
    await val(box.git.restore(path, ["file"]))
    assert await val(box.fs.download_file(f"{path}/file")) == b"1\n"
    await val(box.fs.upload_file(b"2\n", f"{path}/file"))
    await val(box.git.add(path, ["file"]))
    await val(box.git.restore(path, ["file"], staged=True))
    assert states(await val(box.git.status(path))) == {"file": ("Unmodified", "Modified")}
    await val(box.git.add(path, ["file"]))
    await val(box.git.restore(path, ["file"], staged=True, worktree=True))
    assert states(await val(box.git.status(path))) == {} and await box.sh(f"cat {path}/file") == "1\n"
    await committed(box, path, "file", b"2\n")
    await val(box.git.restore(path, ["file"], source="HEAD~1"))
    assert await box.sh(f"cat {path}/file") == "1\n"
    for wrong in ({"files": []}, {"files": ["absent"]}, {"files": ["file"], "staged": False, "worktree": False}):
        with raises(DaytonaError):
            await val(box.git.restore(path, **wrong))


@check(GIT)
async def config(box):
    path = await cloned(box)
    assert await val(box.git.get_config("infield.absent")) is None
    await val(box.git.set_config("infield.word", "global"))
    await val(box.git.set_config("infield.word", "local", scope="local", path=path))
    assert await val(box.git.get_config("infield.word")) == "global"
    assert await val(box.git.get_config("infield.word", scope="local", path=path)) == "local"
    assert await box.sh(f"git -C {path} config infield.word; git config --global infield.word") == "local\nglobal\n"
    await val(box.git.configure_user("Some One", "one@example.org"))
    assert await box.sh("git config --global user.name; git config user.email") == "Some One\none@example.org\n"
    with raises(DaytonaBadRequestError, 400):
        await val(box.git.set_config("a.b", "c", scope="local"))
    with raises(DaytonaBadRequestError, 400):
        await val(box.git.set_config("a.b", ""))


@check(GIT)
async def credentials(box):
    private = environment("GIT_PRIVATE_URL")
    protocol, rest = private.split("://")
    await val(box.git.dangerously_authenticate("me", "pass word", host=rest.split("/")[0], protocol=protocol))
    try:
        await val(box.git.clone(private, unique("stored")))
        assert await box.sh(f"git clone -q {private} {unique('stored')} && git config --global credential.helper") == "store\n"
        with raises(DaytonaBadRequestError, 400):
            await val(box.git.dangerously_authenticate("me\nhost=other", "x"))
    finally:
        await box.sh("rm -f ~/.git-credentials; git config --global --unset-all credential.helper || true")
