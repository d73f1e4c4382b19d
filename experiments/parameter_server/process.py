"""One process: RANK PROCESSES ADDRESS DESCRIPTION. Rank 0 is the server, the others its workers.

The description is {"size": ENTRIES} in JSON. Reads commands, writes answers, a JSON object a line:
{"scheme": NAME, "protocol": NAME, "steps": N, "times": [[SECONDS, ...], ...]} runs a protocol, with
the seconds of each worker's gradients. The server answers with its records, a worker with the
seconds that its gradients took. Ends with its standard input.
"""

from __future__ import annotations

import json
import socket
import sys
from typing import Any

import numpy as np

from experiments.parameter_server.server import Server
from experiments.parameter_server.setting import SCHEMES, SYNCHRONOUS
from experiments.parameter_server.wire import Codec, receive, send
from experiments.parameter_server.worker import work


def main(rank: str, processes: str, address: str, description: str) -> None:
    """Answers until nobody asks."""
    size, number = json.loads(description)['size'], int(rank)
    codecs = {name: Codec(scheme, size) for name, scheme in SCHEMES.items()}
    host, _, port = address.partition(':')
    listening = None
    if number == 0:
        listening = socket.create_server((host, int(port)), backlog=int(processes))
    print(json.dumps({'ready': rank}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        codec = codecs[command['scheme']]
        if listening is not None:
            answer = _serve(listening, int(processes) - 1, codec, size, command)
        else:
            target = np.random.default_rng(number).normal(size=size).astype(np.float32)
            times = command['times'][number - 1]
            with socket.create_connection((host, int(port))) as connection:
                _at_once(connection)
                send(connection, number - 1)
                answer = {'seconds': work(connection, codec, number - 1, target, times)}
        print(json.dumps(answer), flush=True)


def _serve(
    listening: socket.socket, workers: int, codec: Codec, size: int, command: dict[str, Any]
) -> dict[str, Any]:
    connections: dict[int, socket.socket] = {}
    try:
        while len(connections) < workers:
            connection, _ = listening.accept()
            _at_once(connection)
            worker, _ = receive(connection)
            connections[worker] = connection
        server = Server(codec, size, command['steps'])
        server.serve(connections, command['protocol'] == SYNCHRONOUS)
    finally:
        for connection in connections.values():
            connection.close()
    return {'records': server.records}


def _at_once(connection: socket.socket) -> None:
    """Without it, the end of a message may wait for the answer to what was sent before."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


if __name__ == '__main__':
    main(*sys.argv[1:])
