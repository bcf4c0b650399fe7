#!/usr/bin/env python3
"""A small piece of internet: a network namespace, routed through this host, with a git server in it.

Sandboxes may not reach the host, by design, so a repository for tests and the demo has to live elsewhere. This makes
a namespace joined to the host by a veth pair and serves bare repositories in it over HTTP with git's own http-backend.

    git_server.py ROOT            serves ROOT/*.git, prints one line "URL http://198.18.N.2:8000" when it listens
    options: --user U --password P   asks for basic authentication
             --private NAME          asks only for the repository NAME.git

It ends, and takes namespace and veth with it, on SIGTERM, SIGINT, or when its standard input is closed.
Needs root, ip(8) and git(1).
"""
import argparse
import base64
import fcntl
import gzip
import http.server
import os
import signal
import socketserver
import subprocess
import sys
import threading

PORT = 8000


def run(*words, check=True):
    return subprocess.run(words, check=check, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL if not check else None)


class Internet:
    """The namespace. 198.18.0.0/15 is set aside for benchmarks; no real host answers there."""

    def __init__(self):
        self.number, self.lock = self._claim()
        # Not "if…": so the links of sandboxes are named, and one sandbox may not reach another.
        self.name = f"gitnet{self.number}"
        self.outside, self.inside = f"198.18.{self.number}.1", f"198.18.{self.number}.2"
        self.close()
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", self.name, "type", "veth", "peer", "name", "up0", "netns", self.name)
        run("ip", "addr", "add", f"{self.outside}/30", "dev", self.name)
        run("ip", "link", "set", self.name, "up")
        # A way out of the host, as far as a server of sandboxes can tell; the metric keeps everybody else away from it.
        run("ip", "route", "add", "default", "via", self.inside, "dev", self.name, "metric", str(4_000_000_000 + self.number))
        inside = ("ip", "-n", self.name)
        run(*inside, "link", "set", "lo", "up")
        run(*inside, "addr", "add", f"{self.inside}/30", "dev", "up0")
        run(*inside, "link", "set", "up0", "up")
        run(*inside, "route", "add", "default", "via", self.outside)

    @staticmethod
    def _claim():
        """A number nobody else uses; the lock goes with this process."""
        os.makedirs("/run/lock", exist_ok=True)
        for number in range(1, 250):
            lock = open(f"/run/lock/infield-test-internet-{number}", "w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return number, lock
            except BlockingIOError:
                lock.close()
        sys.exit("git_server: no free number for a network namespace")

    def enter(self):
        fd = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(fd, 0x40000000) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        os.close(fd)

    def close(self):
        run("ip", "netns", "del", self.name, check=False)
        run("ip", "link", "del", self.name, check=False)


class Backend(http.server.BaseHTTPRequestHandler):
    """CGI for `git http-backend`."""

    protocol_version = "HTTP/1.1"
    root = ""
    credential = None
    private = "/"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.serve()

    def do_POST(self):
        self.serve()

    def body(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            data = b"".join(parts)
        else:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

    def serve(self):
        data = self.body()
        guarded = self.credential and self.path.startswith(self.private)
        if guarded and self.headers.get("Authorization") != self.credential:
            return self.answer(401, [("WWW-Authenticate", 'Basic realm="git"')], b"credentials wanted\n")
        path, _, query = self.path.partition("?")
        env = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "GIT_PROJECT_ROOT": self.root,
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_COUNT": "2",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "GIT_CONFIG_KEY_1": "http.receivepack",
            "GIT_CONFIG_VALUE_1": "true",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(data)),
            "REMOTE_ADDR": self.client_address[0],
            "REMOTE_USER": "tester",
        }
        done = subprocess.run(["git", "http-backend"], input=data, env=env, stdout=subprocess.PIPE)
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        status, headers = 200, []
        for line in head.decode().split("\r\n"):
            name, _, value = line.partition(": ")
            if name.lower() == "status":
                status = int(value.split()[0])
            elif name:
                headers.append((name, value))
        self.answer(status, headers, body)

    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Not http.server.HTTPServer: that one asks the DNS for its own name first."""

    daemon_threads = True
    allow_reuse_address = True


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("root")
    options.add_argument("--user")
    options.add_argument("--password", default="")
    options.add_argument("--private")
    given = options.parse_args()
    Backend.root = os.path.abspath(given.root)
    if given.user:
        Backend.credential = "Basic " + base64.b64encode(f"{given.user}:{given.password}".encode()).decode()
    if given.private:
        Backend.private = f"/{given.private}.git/"
    internet = Internet()
    try:
        # Only the thread that serves moves into the namespace: addresses are bound there, the rest stays outside.
        internet.enter()
        server = Server((internet.inside, PORT), Backend)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
        threading.Thread(target=lambda: (sys.stdin.read(), server.shutdown()), daemon=True).start()
        print(f"URL http://{internet.inside}:{PORT}", flush=True)
        server.serve_forever(poll_interval=0.1)
    finally:
        internet.close()


main()
