"""What holds for programs, with and without a sandbox: bad ones, the ways to listen, bytes, logs, limits."""

# ruff: noqa: ASYNC240
from __future__ import annotations

import asyncio
import time
from pathlib import Path

import aiohttp
import psutil
import pytest

from colla.environments.folders import LOG_SEGMENT_BYTES_MAX
from colla.environments.protocol import (
    EXIT_LINES_MAX,
    EnvironmentFault,
    HealthCheck,
    Limits,
    ReplicaUnhealthy,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

ON_LISTEN_FDS = """
    import os, socket
    assert os.environ["LISTEN_PID"] == str(os.getpid()) and os.environ["LISTEN_FDS"] == "1"
    listener = socket.socket(fileno=3)
    while True:
        connection, _ = listener.accept()
        if connection.recv(65536):
            connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 3\\r\\nConnection: close\\r\\n\\r\\nfds")
        connection.close()
"""
ON_UNIX_SOCKET = """
    import http.server, os, socketserver
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200); self.send_header("Content-Length", "4"); self.end_headers()
            self.wfile.write(b"unix")
        def log_message(self, *arguments): pass
        def address_string(self): return "unix"
    socketserver.ThreadingUnixStreamServer(os.environ["COLLA_SOCKET"], Handler).serve_forever()
"""
ON_IPV6 = """
    import http.server, os, socket
    class Server(http.server.ThreadingHTTPServer):
        address_family = socket.AF_INET6
    Server(("::1", int(os.environ["PORT"])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def alive(marker: str) -> list[int]:
    """The living processes that carry the marker in their command line."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        if marker in (process.info["cmdline"] or []) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found


# --- bad programs ----------------------------------------------------------------------------------------


async def test_a_program_that_crashes_at_once(programs):
    crash = "import sys; print('about to fail'); print('because of this', file=sys.stderr); sys.exit(3)"
    spec = programs.spec(programs.artifact(app_py=crash))
    await programs.client.start(spec)
    exit = (await programs.exited(spec)).exit
    assert (exit.reason, exit.code, exit.signal) == ("exited", 3, None)
    assert sorted(exit.last_lines) == ["about to fail", "because of this"]
    assert (await programs.status(spec)).exit == exit


async def test_a_program_that_kills_itself(programs):
    spec = programs.spec(programs.artifact(app_py="import os; os.kill(os.getpid(), 11)"))
    await programs.client.start(spec)
    exit = (await programs.exited(spec)).exit
    assert (exit.reason, exit.code, exit.signal) == ("killed", None, 11)
    assert "SIGSEGV" in exit.message


@pytest.mark.parametrize("command", [("no-such-program",), ("./index.html",), ("/root/.ssh/id",)])
async def test_a_program_that_cannot_be_started(programs, command):
    spec = programs.spec(command=command)
    await programs.client.start(spec)
    exit = (await programs.exited(spec)).exit
    assert exit.reason == "not_started" and command[0] in exit.message


async def test_a_program_that_never_listens(programs):
    spec = programs.spec(
        programs.artifact(app_py="import time\nprint('idle', flush=True)\ntime.sleep(600)"),
        health=HealthCheck(start_period_s=0.6),
    )
    await programs.client.start(spec)
    exit = (await programs.exited(spec)).exit
    assert exit.reason == "never_listened" and "0.6 s" in exit.message and "$PORT" in exit.message
    assert exit.last_lines == ("idle",)
    assert not alive(spec.replica)


async def test_a_program_that_ignores_sigterm_is_killed_with_all_its_children(programs, get):
    stubborn = """
        import os, signal, subprocess, sys, http.server
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        loop = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
        subprocess.Popen([sys.executable, "-c", loop, os.environ["COLLA_REPLICA"]])
        subprocess.Popen([sys.executable, "-c", loop, os.environ["COLLA_REPLICA"]], start_new_session=True)
        daemon = "import os, sys; os.fork() and os._exit(0); os.setsid(); os.fork() and os._exit(0); " + loop
        subprocess.run([sys.executable, "-c", daemon, os.environ["COLLA_REPLICA"]])
        address = (os.environ["HOST"], int(os.environ["PORT"]))
        http.server.HTTPServer(address, http.server.SimpleHTTPRequestHandler).serve_forever()
    """
    spec = programs.spec(programs.artifact(app_py=stubborn))
    other = programs.spec()
    await programs.ready(spec)
    socket = await programs.ready(other)
    assert len(alive(spec.replica)) >= 4
    began = time.monotonic()
    exit = (await programs.client.stop(spec.replica_id, 0.3)).exit
    assert 0.3 <= time.monotonic() - began < 5
    assert exit.reason == "stopped"
    assert not alive(spec.replica)
    assert (await get(socket))[0] == 200
    await programs.client.delete(other.replica_id)


async def test_what_a_program_leaves_behind_ends_with_it(programs):
    leaving = """
        import os, subprocess, sys
        command = [sys.executable, "-c", "import time; time.sleep(600)", os.environ["COLLA_REPLICA"]]
        subprocess.Popen(command, start_new_session=True)
    """
    spec = programs.spec(programs.artifact(app_py=leaving))
    await programs.client.start(spec)
    assert (await programs.exited(spec)).exit.code == 0
    assert not alive(spec.replica)


async def test_a_program_gets_its_grace(programs):
    graceful = """
        import http.server, os, signal, sys, threading
        address = (os.environ["HOST"], int(os.environ["PORT"]))
        server = http.server.HTTPServer(address, http.server.SimpleHTTPRequestHandler)
        def bye(number, frame):
            print("closing the books", flush=True)
            sys.exit(7)
        signal.signal(signal.SIGTERM, bye)
        server.serve_forever()
    """
    spec = programs.spec(programs.artifact(app_py=graceful))
    await programs.ready(spec)
    exit = (await programs.client.stop(spec.replica_id, 20.0)).exit
    assert (exit.reason, exit.code) == ("stopped", 7) and exit.last_lines[-1] == "closing the books"


async def test_the_signal_reaches_a_program_behind_a_shell(programs):
    spec = programs.spec(command=("sh", "-c", "python3 app.py; true"))
    await programs.ready(spec)
    began = time.monotonic()
    await programs.client.stop(spec.replica_id, 20.0)
    assert time.monotonic() - began < 10


async def test_stopping_right_after_the_start(programs):
    spec = programs.spec()
    await programs.client.start(spec)
    assert (await programs.client.stop(spec.replica_id, 10.0)).exit.reason == "stopped"
    assert not alive(spec.replica)


async def test_a_shorter_grace_wins(programs):
    ignoring = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); exec(open('web.py').read())"
    artifact = programs.artifact()
    (artifact / "web.py").write_text((artifact / "app.py").read_text())
    (artifact / "app.py").write_text(ignoring)
    spec = programs.spec(artifact)
    await programs.ready(spec)
    first = asyncio.create_task(programs.client.stop(spec.replica_id, 60.0))
    await programs.client.stop(spec.replica_id, 0.0)
    assert (await first).exit.reason == "stopped"


async def test_unhealthy_and_healthy_again_are_told(programs, get):
    spec = programs.spec(health=HealthCheck(path="/healthy", interval_s=0.05, failures_max=2))
    socket = await programs.ready(spec)
    await get(socket, "/sick")
    unhealthy = await programs.event(spec.replica, ReplicaUnhealthy)
    assert "500" in unhealthy.message
    assert (await programs.status(spec)).phase == "unhealthy"
    await programs.client.delete(spec.replica_id)


# --- ways to listen --------------------------------------------------------------------------------------


@pytest.mark.parametrize("listen", ["auto", "fds"])
async def test_listen_fds(programs, get, listen):
    spec = programs.spec(programs.artifact(app_py=ON_LISTEN_FDS), listen=listen)
    assert await get(await programs.ready(spec)) == (200, b"fds")
    await programs.client.delete(spec.replica_id)


@pytest.mark.parametrize("listen", ["auto", "unix"])
async def test_a_unix_socket(programs, get, listen):
    spec = programs.spec(programs.artifact(app_py=ON_UNIX_SOCKET), listen=listen)
    assert await get(await programs.ready(spec)) == (200, b"unix")
    await programs.client.delete(spec.replica_id)


@pytest.mark.parametrize("listen", ["auto", "port"])
async def test_host_and_port(programs, get, listen):
    spec = programs.spec(listen=listen)
    assert (await get(await programs.ready(spec)))[0] == 200
    await programs.client.delete(spec.replica_id)


async def test_port_on_the_other_loopback(programs, get):
    spec = programs.spec(programs.artifact(app_py=ON_IPV6))
    assert await get(await programs.ready(spec)) == (200, b"<h1>home</h1>")
    await programs.client.delete(spec.replica_id)


# --- bytes through the bridge ----------------------------------------------------------------------------


async def test_big_bodies_both_ways_and_many_at_once(programs, get):
    spec = programs.spec()
    socket = await programs.ready(spec)
    expected = bytes(range(256)) * 16384
    answers = await asyncio.gather(*(get(socket, "/big") for _ in range(8)))
    assert all(answer == (200, expected) for answer in answers)
    assert await get(socket, "/", method="POST", data=expected) == (200, expected)
    await programs.client.delete(spec.replica_id)


async def test_half_closed_and_broken_connections(programs):
    echo = """
        import os, socketserver
        class Echo(socketserver.StreamRequestHandler):
            def handle(self):
                whole = self.rfile.read()
                if whole != b"hang up":
                    self.wfile.write(whole[::-1])
        socketserver.ThreadingTCPServer((os.environ["HOST"], int(os.environ["PORT"])), Echo).serve_forever()
    """
    spec = programs.spec(programs.artifact(app_py=echo), listen="port")
    socket = await programs.ready(spec)
    for sent, expected in ((b"abc" * 100_000, b"cba" * 100_000), (b"hang up", b""), (b"xy", b"yx")):
        reader, writer = await asyncio.open_unix_connection(socket)
        writer.write(sent)
        writer.write_eof()
        assert await reader.read() == expected
        writer.close()
    # One that sends and disappears must not disturb the others.
    for _ in range(20):
        _, writer = await asyncio.open_unix_connection(socket)
        writer.write(b"z" * 100_000)
        writer.transport.abort()
    reader, writer = await asyncio.open_unix_connection(socket)
    writer.write(b"12")
    writer.write_eof()
    assert await reader.read() == b"21"
    writer.close()
    await programs.client.delete(spec.replica_id)


async def test_a_websocket(programs):
    greeter = """
        import base64, hashlib, os, socketserver
        class Greeter(socketserver.StreamRequestHandler):
            def handle(self):
                key = ""
                while line := self.rfile.readline().strip():
                    name, _, value = line.decode().partition(": ")
                    key = value if name.lower() == "sec-websocket-key" else key
                if not key:
                    return
                accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest())
                self.wfile.write(b"HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n"
                                 b"Sec-WebSocket-Accept: " + accept + b"\\r\\n\\r\\n\\x81\\x05hello")
                self.rfile.read(2)
        socketserver.ThreadingTCPServer((os.environ["HOST"], int(os.environ["PORT"])), Greeter).serve_forever()
    """
    spec = programs.spec(programs.artifact(app_py=greeter), listen="port")
    connector = aiohttp.UnixConnector(await programs.ready(spec))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.ws_connect("http://replica/") as ws,
    ):
        assert (await ws.receive(timeout=10)).data == "hello"
    await programs.client.delete(spec.replica_id)


# --- the program's surroundings --------------------------------------------------------------------------


async def test_environment_scratch_and_artifact(programs, tmp_path_factory):
    look = """
        import json, os, pathlib, tempfile
        seen = {name: os.environ[name] for name in ("COLLA_SERVICE", "COLLA_REPLICA", "COLOUR", "HOST")}
        pathlib.Path.home().joinpath("kept").write_text("x")
        seen["scratch"] = tempfile.mkstemp()[1] != "" and pathlib.Path.home().joinpath("kept").read_text() == "x"
        seen["secret"] = os.environ.get("OWNERS_SECRET")
        seen["page"] = pathlib.Path("index.html").read_text()
        print(json.dumps(seen))
    """
    import json

    spec = programs.spec(
        programs.artifact(app_py=look), env={"COLOUR": "blue", "PORT": "1", "COLLA_REPLICA": "forged"}
    )
    await programs.client.start(spec)
    exit = (await programs.exited(spec)).exit
    assert exit.code == 0, exit.last_lines
    assert json.loads(exit.last_lines[0]) == {
        "COLLA_SERVICE": "garden", "COLLA_REPLICA": spec.replica, "COLOUR": "blue", "HOST": "127.0.0.1",
        "scratch": True, "secret": None, "page": "<h1>home</h1>",
    }  # fmt: skip
    assert not (programs.folder / "runtime" / "replicas" / spec.replica / "scratch").exists()


async def test_a_scratch_folder_that_defends_itself(programs):
    hostile = """
        import os, pathlib
        inner = pathlib.Path.home() / "a" / "b"
        inner.mkdir(parents=True)
        (inner / "file").write_text("x")
        (inner / "link").symlink_to("/etc")
        inner.chmod(0)
        inner.parent.chmod(0)
    """
    spec = programs.spec(programs.artifact(app_py=hostile))
    await programs.client.start(spec)
    assert (await programs.exited(spec)).exit.code == 0
    assert not (programs.folder / "runtime" / "replicas" / spec.replica / "scratch").exists()
    assert Path("/etc/passwd").exists()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"command": ()}, "command_missing"),
        ({"command": ("x" * 70_000,)}, "command_too_long"),
        ({"command": ("a\0b",)}, "command_malformed"),
        ({"env": {"A=B": "c"}}, "command_malformed"),
    ],
)
async def test_a_malformed_command_is_refused(programs, change, code):
    with pytest.raises(EnvironmentFault) as refused:
        await programs.client.start(programs.spec(**change))
    assert refused.value.code == code


async def test_without_the_owners_consent_nothing_runs_unsandboxed(programs):
    if programs.kind == "process-bubblewrap":
        assert programs.client.info.needs_consent == ""
        return
    programs.client.allow_unsandboxed = False
    try:
        with pytest.raises(EnvironmentFault) as refused:
            await programs.client.start(programs.spec())
        assert refused.value.code == "consent_needed" and "bubblewrap" in refused.value.hint
    finally:
        programs.client.allow_unsandboxed = True


# --- logs ------------------------------------------------------------------------------------------------


async def test_logs_are_followed_to_the_end(programs, get):
    spec = programs.spec()
    await programs.ready(spec)
    lines = []
    seen = asyncio.Event()

    async def follow() -> None:
        async for line in programs.client.logs(spec.replica_id, follow=True):
            lines.append(line)
            seen.set()

    following = asyncio.create_task(follow())
    await asyncio.wait_for(seen.wait(), 10)
    assert (lines[0].number, lines[0].stream, lines[0].text) == (1, "stdout", "listening soon")
    assert abs(lines[0].at - time.time()) < 60
    await programs.client.stop(spec.replica_id, 5.0)
    await asyncio.wait_for(following, 10)
    assert [line async for line in programs.client.logs(spec.replica_id, after=1)] == lines[1:]


async def test_logs_are_bounded_on_disk(programs):
    chatty = """
        import sys
        for number in range(40000):
            print(f"line {number} " + "x" * 50)
        sys.stderr.write("y" * 20000)
    """
    spec = programs.spec(programs.artifact(app_py=chatty))
    await programs.client.start(spec)
    exit = (await programs.exited(spec)).exit
    assert exit.code == 0 and len(exit.last_lines) == EXIT_LINES_MAX
    folder = programs.folder / "runtime" / "replicas" / spec.replica
    sizes = [(folder / name).stat().st_size for name in ("log.0", "log.1")]
    assert max(sizes) <= LOG_SEGMENT_BYTES_MAX and sum(sizes) > LOG_SEGMENT_BYTES_MAX / 2
    lines = [line async for line in programs.client.logs(spec.replica_id)]
    numbers = [line.number for line in lines]
    assert numbers == list(range(numbers[0], numbers[-1] + 1)) and numbers[0] > 1
    texts = [line.text for line in lines if line.stream == "stdout"]
    assert texts[-1] == "line 39999 " + "x" * 50
    # One line without an end is cut into pieces, none of them lost.
    assert sum(len(line.text) for line in lines if line.stream == "stderr") == 20000


async def test_a_line_without_an_end_is_kept(programs):
    spec = programs.spec(
        programs.artifact(app_py="import sys; sys.stdout.write('no newline'); sys.stdout.flush()")
    )
    await programs.client.start(spec)
    assert (await programs.exited(spec)).exit.last_lines == ("no newline",)


# --- limits ----------------------------------------------------------------------------------------------


def require_limit(programs, name):
    if name not in programs.client.info.limits_enforced:
        pytest.skip(f"control groups cannot limit {name} on this computer")


async def test_memory(programs):
    require_limit(programs, "memory_bytes")
    hungry = "import time; kept = [bytearray(1 << 20) for _ in range(300)]; print('ate all of it')"
    spec = programs.spec(programs.artifact(app_py=hungry), limits=Limits(memory_bytes=96 << 20))
    await programs.client.start(spec)
    exit = (await programs.exited(spec)).exit
    assert exit.reason == "out_of_memory" and exit.last_lines == ()


async def test_processes(programs):
    require_limit(programs, "pids")
    forking = """
        import os, time
        count = 0
        try:
            for count in range(200):
                if os.fork() == 0:
                    time.sleep(600)
        except OSError:
            print("stopped early" if count < 40 else "too late")
    """
    spec = programs.spec(programs.artifact(app_py=forking), limits=Limits(pids=32))
    await programs.client.start(spec)
    assert (await programs.exited(spec)).exit.last_lines == ("stopped early",)


async def test_processors(programs):
    require_limit(programs, "cpus")
    busy = """
        import time
        began = time.monotonic()
        while time.process_time() < 0.2:
            pass
        print("throttled" if time.monotonic() - began > 0.7 else "not throttled")
    """
    spec = programs.spec(programs.artifact(app_py=busy), limits=Limits(cpus=0.2))
    await programs.client.start(spec)
    assert (await programs.exited(spec)).exit.last_lines == ("throttled",)


async def test_open_files(programs):
    opening = "files = []\ntry:\n  for _ in range(100): files.append(open('index.html'))\nexcept OSError: print('full')"
    spec = programs.spec(programs.artifact(app_py=opening), limits=Limits(open_files=40))
    await programs.client.start(spec)
    assert (await programs.exited(spec)).exit.last_lines == ("full",)


async def test_only_limits_that_hold_are_claimed(programs):
    spec = programs.spec(limits=Limits(memory_bytes=256 << 20, open_files=100))
    await programs.ready(spec)
    info = programs.client.info.limits_enforced
    claimed = (await programs.status(spec)).limits_enforced
    assert set(claimed) == {"memory_bytes", "open_files"} & set(info)
    stats = await programs.client.stats(spec.replica_id)
    assert stats.memory_bytes > 1 << 20 and stats.cpu_seconds > 0 and stats.processes >= 2
    await programs.client.delete(spec.replica_id)
