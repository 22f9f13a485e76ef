# Small helpers for triggers that talk to a server: on loopback only, and the server ends with the trigger.
import os, signal, socket, subprocess, sys, tempfile, time


def port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def program(end):
    """The executable of the tree (first word of the command line) whose path ends so."""
    for folder, _, files in os.walk(sys.argv[1]):
        for name in files:
            path = os.path.join(folder, name)
            if path.endswith("/" + end) and os.access(path, os.X_OK) and not os.path.islink(path):
                return path
    print("no", end, "in", sys.argv[1], file=sys.stderr)
    sys.exit(2)


def listening(number, seconds=10):
    end = time.time() + seconds
    while time.time() < end:
        try:
            socket.create_connection(("127.0.0.1", number), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    print("it does not listen", file=sys.stderr)
    sys.exit(2)


def repeat(check, server):
    """check() -> 0 fixed, 1 vulnerable, 2 cannot tell: as often as the command line says, against one live server."""
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    result = 2
    try:
        for i in range(count):
            try:
                result = check()
            except OSError as error:
                print(error, file=sys.stderr)
                result = 2
            print({0: "FIXED", 1: "VULNERABLE"}.get(result, "ERROR"), flush=True)
            if server.poll() is not None:
                result = 2
                break
            if i + 1 < count:
                time.sleep(0.2)
    finally:
        server.terminate()
        try:
            server.wait(5)
        except subprocess.TimeoutExpired:
            server.kill()
    sys.exit(result)


def ended(signum, frame):
    raise SystemExit(2)


signal.signal(signal.SIGTERM, ended)
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
