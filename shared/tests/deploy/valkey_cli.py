"""What the scripts of k8s/overlays/production/redis.yaml ask of valkey-cli, for machines that have a server alone.

    valkey_cli.py -h HOST -p PORT --raw COMMAND ARGUMENT…
"""

import socket
import sys


def main():
    arguments = sys.argv[1:]
    host, port = "127.0.0.1", "6379"
    while arguments and arguments[0].startswith("-"):
        option = arguments.pop(0)
        if option == "-h":
            host = arguments.pop(0)
        elif option == "-p":
            port = arguments.pop(0)
        elif option != "--raw":
            sys.exit(f"unknown option {option}")
    try:
        with socket.create_connection((host, int(port)), timeout=2) as server:
            words = [word.encode() for word in arguments]
            parts = [b"*%d\r\n" % len(words)] + [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
            server.sendall(b"".join(parts))
            print("\n".join(answer(server.makefile("rb"))))
    except (OSError, ValueError) as problem:
        sys.exit(f"could not connect to {host}:{port}: {problem}")


def answer(lines):
    line = lines.readline()
    if not line.endswith(b"\r\n"):
        raise ValueError("no answer")
    kind, rest = line[:1], line[1:-2].decode()
    if kind == b"*":
        # A list that is none is shown as an empty line.
        return [part for _ in range(int(rest)) for part in answer(lines)] if int(rest) >= 0 else [""]
    if kind == b"$":
        size = int(rest)
        return [lines.read(size + 2)[:-2].decode()] if size >= 0 else [""]
    return [rest]


main()
