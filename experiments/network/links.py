"""Workers' machines in one: a network namespace each, joined by a bridge, on links of a set speed.

A namespace called hub holds the bridge; each worker's namespace holds one end of a veth pair, eth0,
the hub the other. `tc tbf` limits both ends, so a link is full duplex and every worker has its own.
All of it goes when the namespaces go. gloo listens on the address of the machine's host name, so
/etc/netns/NAME/hosts, which `ip netns exec` shows in place of /etc/hosts, maps it to eth0.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

PREFIX = 'gradzip'
HOSTS = Path('/etc/netns')
# A bucket of 1 ms keeps a fast link from stalling between two timer ticks; at least the 64 kB that
# the kernel hands to a device in one piece. Both are little against what an exchange sends.
BUCKET_SECONDS, BUCKET_BYTES = 1e-3, 65_536
QUEUE = '400ms'  # packets wait rather than drop, as in a switch with deep buffers


class Link(NamedTuple):
    """What every worker's link can do; None for no limit."""

    name: str
    bits: float | None  # per second, each way
    delay: float = 0.0  # seconds, each way


class Network:
    """Namespaces that are up. Made by `network`."""

    def __init__(self, workers: int) -> None:
        self.hub = f'{PREFIX}-{os.getpid()}-hub'
        self.names = [f'{PREFIX}-{os.getpid()}-{rank}' for rank in range(workers)]
        self.addresses = [f'10.77.0.{rank + 1}' for rank in range(workers)]

    def up(self) -> None:
        """Makes everything."""
        _ip('netns', 'add', self.hub)
        _ip('-n', self.hub, 'link', 'add', 'bridge', 'type', 'bridge')
        _ip('-n', self.hub, 'link', 'set', 'bridge', 'up')
        for rank, (name, address) in enumerate(zip(self.names, self.addresses, strict=True)):
            port = f'port{rank}'
            _ip('netns', 'add', name)
            pair = ('eth0', 'netns', name, 'type', 'veth', 'peer', port, 'netns', self.hub)
            _ip('link', 'add', *pair)
            _ip('-n', self.hub, 'link', 'set', port, 'master', 'bridge', 'up')
            _ip('-n', name, 'address', 'add', f'{address}/24', 'dev', 'eth0')
            _ip('-n', name, 'link', 'set', 'eth0', 'up')
            _ip('-n', name, 'link', 'set', 'lo', 'up')
            (HOSTS / name).mkdir(parents=True)
            hosts = f'127.0.0.1 localhost\n{address} {socket.gethostname()}\n'
            (HOSTS / name / 'hosts').write_text(hosts)

    def down(self) -> None:
        """Removes everything, whatever of it is there."""
        for name in (self.hub, *self.names):
            _remove(name)

    def limit(self, link: Link, ranks: Iterable[int] | None = None) -> None:
        """Gives such a link to these workers, or to all."""
        ranks = range(len(self.names)) if ranks is None else list(ranks)
        ends = [(self.names[rank], 'eth0') for rank in ranks]
        ends += [(self.hub, f'port{rank}') for rank in ranks]
        for name, device in ends:
            with contextlib.suppress(NetworkError):  # there is nothing to remove the first time
                _tc('-n', name, 'qdisc', 'del', 'dev', device, 'root')
            delay = link.delay if device == 'eth0' else 0  # a packet leaves by one eth0
            parent: tuple[str, ...] = ('root',)
            if delay:
                wait = ('netem', 'delay', f'{delay * 1e3:g}ms', 'limit', '100000')
                _tc('-n', name, 'qdisc', 'add', 'dev', device, 'root', 'handle', '1:', *wait)
                parent = ('parent', '1:')
            if link.bits is not None:
                bucket = max(BUCKET_BYTES, round(link.bits / 8 * BUCKET_SECONDS))
                rate = ('rate', f'{link.bits:.0f}bit', 'burst', f'{bucket}b', 'latency', QUEUE)
                _tc('-n', name, 'qdisc', 'add', 'dev', device, *parent, 'tbf', *rate)

    def start(self, rank: int, command: list[str], **arguments) -> subprocess.Popen:
        """A process on a worker's machine."""
        return subprocess.Popen(['ip', 'netns', 'exec', self.names[rank], *command], **arguments)

    def can_delay(self) -> str | None:
        """None, or why this kernel cannot delay packets."""
        wait = ('netem', 'delay', '1ms')
        try:
            _tc('-n', self.names[0], 'qdisc', 'add', 'dev', 'eth0', 'root', *wait)
        except NetworkError as error:
            return str(error)
        _tc('-n', self.names[0], 'qdisc', 'del', 'dev', 'eth0', 'root')
        return None


class NetworkError(RuntimeError):
    """A command of iproute2 that failed, or cannot be tried."""


@contextlib.contextmanager
def network(workers: int) -> Iterator[Network]:
    """A network of so many workers, removed at the end however that comes."""
    if reason := unavailable():
        raise NetworkError(reason)
    _remove_leftovers()
    made = Network(workers)
    try:
        made.up()
        yield made
    finally:
        made.down()


def unavailable() -> str | None:
    """None, or why no network can be made here."""
    if os.geteuid() != 0:
        return 'Network namespaces need root: run this as root (sudo).'
    missing = [command for command in ('ip', 'tc') if shutil.which(command) is None]
    if missing:
        return f'{" and ".join(missing)} not found: install iproute2.'
    name = f'{PREFIX}-{os.getpid()}-try'
    try:
        _ip('netns', 'add', name)
        _tc('-n', name, 'qdisc', 'add', 'dev', 'lo', 'root', 'tbf', *_ANY_RATE)
    except NetworkError as error:
        return f'This system makes no limited links, even as root. {error}'
    finally:
        _remove(name)
    return None


_ANY_RATE = ('rate', '1gbit', 'burst', '100kb', 'latency', '1ms')


def _remove_leftovers() -> None:
    """What a killed run left behind: namespaces with the number of a process that is gone."""
    for line in _ip('netns', 'list').splitlines():
        prefix, _, rest = line.partition('-')
        pid = rest.partition('-')[0]
        if prefix == PREFIX and pid.isdecimal() and not Path(f'/proc/{pid}').exists():
            _remove(line.split()[0])


def _remove(name: str) -> None:
    with contextlib.suppress(NetworkError):
        _ip('netns', 'delete', name)
    shutil.rmtree(HOSTS / name, ignore_errors=True)


def _ip(*arguments: str) -> str:
    return _run('ip', *arguments)


def _tc(*arguments: str) -> str:
    return _run('tc', *arguments)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise NetworkError(f'`{" ".join(command)}` said: {(done.stderr or done.stdout).strip()}')
    return done.stdout
