# Runs pieces of Python code for the agent, one after another, in one namespace. The agent's channel is descriptor 0 at first;
# it moves out of the way before any code runs. Output of the code, and of what it starts, leaves through descriptors 1 and 2,
# which are put back before each piece, whatever the piece before did to them.
import sys

# A file of the working directory must not stand in for a module that is needed here.
_first = sys.path[:1]
if _first == [""]:
    del sys.path[0]
import builtins, fcntl, io, os, signal, types

sys.path[:0] = _first if _first == [""] else []


def serve():
    PRIVATE = 200
    TEXT_MAX = 64 * 1024
    FRAMES_MAX = 100
    FILE = "<stdin>"
    compile_, exec_, type_, str_, getpid = compile, exec, type, str, os.getpid
    read, write, dup2, exit_ = os.read, os.write, os.dup2, os._exit
    me = getpid()
    channel = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, PRIVATE)
    out = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, PRIVATE)
    err = fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, PRIVATE)
    null = os.open(os.devnull, os.O_RDWR)
    dup2(null, 0)
    os.close(null)
    running = [False]
    streams = [None, None]

    def on_interrupt(number, frame):
        if running[0]:
            raise KeyboardInterrupt

    def stream(at, name):
        ours = streams[at]
        try:
            good = ours is not None and not ours.closed
        except BaseException:
            good = False
        if not good:
            raw = io.FileIO(at + 1, "w", closefd=False)
            ours = io.TextIOWrapper(
                io.BufferedWriter(raw, 1024), encoding="utf-8", errors="backslashreplace", line_buffering=True
            )
            ours._CHUNK_SIZE = 1024
            streams[at] = ours
        setattr(sys, name, ours)
        setattr(sys, "__" + name + "__", ours)

    def prepare():
        dup2(out, 1)
        dup2(err, 2)
        stream(0, "stdout")
        stream(1, "stderr")
        try:
            signal.signal(signal.SIGINT, on_interrupt)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        except BaseException:
            pass

    def flush():
        for s in (sys.stdout, sys.stderr, streams[0], streams[1]):
            try:
                s.flush()
            except KeyboardInterrupt:
                raise
            except BaseException:
                pass

    def get(n):
        parts = []
        while n:
            part = read(channel, min(n, 1 << 20))
            if not part:
                exit_(0)
            parts.append(part)
            n -= len(part)
        return b"".join(parts)

    def number(frame, at):
        return int.from_bytes(frame[at : at + 4], "little"), at + 4

    def text(frame, at):
        n, at = number(frame, at)
        return frame[at : at + n].decode("utf-8", "replace"), at + n

    def request():
        frame = get(number(get(4), 0)[0])
        job, at, envs = frame[:8], 8, []
        count, at = number(frame, at)
        for _ in range(count):
            name, at = text(frame, at)
            there = frame[at]
            value, at = text(frame, at + 1)
            envs.append((name, value if there else None))
        return job, envs, text(frame, at)[0]

    def answer(job, kind, texts=("", "", "")):
        frame = job + bytes([kind])
        for t in texts:
            t = t[:TEXT_MAX].encode("utf-8", "replace")
            frame += len(t).to_bytes(4, "little") + t
        frame = len(frame).to_bytes(4, "little") + frame
        while frame:
            frame = frame[write(channel, frame) :]

    def set_variable(name, value):
        try:
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        except (ValueError, OSError):
            pass

    def describe(e, trace):
        name = type_(e).__name__
        try:
            value = str_(e)
        except KeyboardInterrupt:
            raise
        except BaseException:
            value = "<exception str() failed>"
        lines = []
        while trace is not None:
            code = trace.tb_frame.f_code
            if code.co_filename == FILE:
                lines.append('  File "%s", line %d, in %s\n' % (FILE, trace.tb_lineno, code.co_name))
            trace = trace.tb_next
        if len(lines) > FRAMES_MAX:
            lines[FRAMES_MAX // 2 : -FRAMES_MAX // 2] = ["  ...\n"]
        if lines:
            lines.insert(0, "Traceback (most recent call last):\n")
        lines.append(name + ": " + value if value else name)
        return name, value, "".join(lines)

    def run(source, space):
        kind, texts, status = 1, ("", "", ""), 0
        try:
            try:
                running[0] = True
                try:
                    exec_(compile_(source, FILE, "exec", dont_inherit=True), space)
                except SystemExit as e:
                    status = 0 if e.code is None else e.code if isinstance(e.code, int) else 1
                except KeyboardInterrupt:
                    raise
                except BaseException as e:
                    kind, status = 3, 1
                    texts = describe(e, e.__traceback__)
                    e = None
                flush()
            finally:
                running[0] = False
        except KeyboardInterrupt:
            running[0] = False
            kind, texts, status = 2, ("", "", ""), 130
            flush()
        if getpid() != me:
            # A child of the code that came back here: its end is not the end of the code.
            if texts[2]:
                write(2, texts[2].encode("utf-8", "replace") + b"\n")
            exit_(status & 255)
        return kind, texts

    main = types.ModuleType("__main__")
    main.__builtins__ = builtins
    sys.modules["__main__"] = main
    sys.argv = [""]
    prepare()
    answer(bytes(8), 0)
    while True:
        job, envs, source = request()
        prepare()
        before = [(name, os.environ.get(name)) for name, _ in envs]
        for name, value in envs:
            set_variable(name, value)
        kind, texts = run(source, main.__dict__)
        for name, value in before:
            set_variable(name, value)
        answer(job, kind, texts)


serve()
