"""Hosts that start together, each on a link that has a limit: how close to the best that can be.

    sudo .venv/bin/python bench/links.py [--hosts 1 2 4 8] [--size 128MiB] [--rate 200Mbit]

Each host is a network namespace with a link of that rate both ways; the seed has one like it (or
``--seed-rate``), origin and scheduler have a fast one. Nothing is cached; all hosts begin at the
same moment and throw away what they get. What is printed are multiples of size / rate, the time in
which one host alone could receive it at best: that of the first host and of the slowest.

Beside it stands what ``python -m pantala.sim`` makes of the same swarm.

With ``--slow N`` so many more hosts have a link of a tenth of the rate. They are not counted: what
is shown is how little they hold up the others. With ``--kill-seed`` the seed gets SIGKILL when half
of that time is over.

``PANTALA_LINKS_COMMAND`` names another program to measure: a command for each host, with ``{url}``
in it, run in the host's namespace.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pantala.model.units import format_size, parse_size
from pantala.testing.cluster import Cluster
from pantala.testing.namespaces import CannotLink, Network

PATIENCE = 600.0
_IN = ("pantala.testing.namespaces",)


class Round(NamedTuple):
    """One round: seconds of each host, and bytes.

    Attributes:
        origin: Bytes of content that the origin sent.
        seed: Bytes that the seed's link carried away from it, headers included; 0 without one.
    """

    seconds: list[float]
    origin: int
    seed: int


def parse_rate(text: str) -> int:
    """``200Mbit`` in bits a second."""
    found = re.fullmatch(r"(\d+)(k|M|G)?bit", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r}: want a rate such as 200Mbit")
    return int(found[1]) * {None: 1, "k": 10**3, "M": 10**6, "G": 10**9}[found[2]]


@contextmanager
def origin(name: str, address: str, size: int) -> Iterator[str]:
    """An HTTP origin in a namespace; the URL of its one file."""
    words = ("pantala.testing.origin", "--host", address, "--pattern", f"/file={size}")
    process = subprocess.Popen(
        [sys.executable, "-m", *_IN, name, *words], stdout=subprocess.PIPE, text=True
    )
    try:
        if process.stdout is None:
            raise SystemExit("the origin has no output")
        yield f"http://{address}:{int(process.stdout.readline())}/file"
    finally:
        process.terminate()
        process.wait()


def sent(name: str, url: str) -> int:
    """Bytes of content that the origin has sent: asked from its own namespace."""
    script = f"import urllib.request; print(urllib.request.urlopen({url!r}).read().decode())"
    words = ["ip", "netns", "exec", name, sys.executable, "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return int(json.loads(done.stdout)["sent"])


def of_ours(
    network: Network, options: argparse.Namespace, hosts: list[tuple[str, str]], directory: Path
) -> Round:
    """A round of pantala."""
    fast, fast_address = network.host()
    seed, seed_address = network.host(options.seed_rate)
    capacity = str(options.size + (64 << 20))
    with origin(fast, fast_address, options.size) as url, Cluster(directory) as cluster:
        cluster.wrapper = (*_IN, fast)
        program = cluster.start(
            *("pantala.cli.dfscheduler", "--listen-ip", fast_address, "--advertise-ip"),
            *(fast_address, "--port", "8002"),
            name="scheduler",
        )
        program.wait_for("listening")
        nodes = []
        for (namespace, address), name in [
            ((seed, seed_address), "seed"),
            *((host, f"n{i}") for i, host in enumerate(hosts)),
        ]:
            cluster.wrapper = (*_IN, namespace)
            arguments = ["--ip", address, "--scheduler", f"{fast_address}:8002"]
            is_seed = name == "seed"
            node = cluster.daemon(name, *arguments, seed=is_seed, capacity=capacity, wait=False)
            nodes.append(node)
        for node in nodes:
            node.ready = node.wait_for("ready")
        before, _ = network.carried(seed)
        begun = [cluster.begin(node, url, output=Path("/dev/null")) for node in nodes[1:]]
        if options.kill_seed:
            time.sleep(options.size * 4 / options.rate)  # the moment is what is to be looked at
            nodes[0].kill()
        got = [cluster.finish(*each, patience=PATIENCE) for each in begun]
        for one in got:
            if one.code:
                raise SystemExit(one.stderr)
        after, _ = network.carried(seed)
        base = url.removesuffix("/file")
        counted = got[: len(got) - options.slow]
        seconds = [float(one.result["seconds"]) for one in counted]
        return Round(seconds, sent(fast, f"{base}/.stats"), after - before)


def of_another(
    network: Network, options: argparse.Namespace, hosts: list[tuple[str, str]], command: str
) -> Round:
    """A round of the program that *command* starts on each host."""
    fast, fast_address = network.host()
    with origin(fast, fast_address, options.size) as url:
        began = time.monotonic()
        running = {
            subprocess.Popen(["ip", "netns", "exec", name, *shlex.split(command.format(url=url))])
            for name, _ in hosts
        }
        seconds = []
        while running:
            for process in [p for p in running if p.poll() is not None]:
                running.discard(process)
                if process.returncode:
                    raise SystemExit(f"{command}: exit status {process.returncode}")
                seconds.append(time.monotonic() - began)
            if time.monotonic() - began > PATIENCE:
                raise SystemExit(f"{command}: not within {PATIENCE:g} s")
            time.sleep(0.01)  # they are other programs: nothing to wait on but their end
        base = url.removesuffix("/file")
        return Round(seconds, sent(fast, f"{base}/.stats"), 0)


def measure(options: argparse.Namespace, number: int) -> Round:
    """A round with so many hosts."""
    command = os.environ.get("PANTALA_LINKS_COMMAND")
    with Network() as network, tempfile.TemporaryDirectory(prefix="pl-") as name:
        hosts = [network.host(options.rate) for _ in range(number)]
        hosts += [network.host(options.rate // 10) for _ in range(options.slow)]
        if command:
            return of_another(network, options, hosts, command)
        return of_ours(network, options, hosts, Path(name))


def modelled(options: argparse.Namespace, number: int) -> str:
    """What the simulation makes of the same: the slowest host of each round."""
    if options.slow or options.kill_seed or os.environ.get("PANTALA_LINKS_COMMAND"):
        return ""
    found = []
    for seed in range(1, options.rounds + 1):
        words = [sys.executable, "-m", "pantala.sim", "flash-crowd", "--json", "--seed", str(seed)]
        words += ["--hosts", str(number), "--size", str(options.size)]
        words += ["--rate", f"{options.rate}bit", "--seed-rate", f"{options.seed_rate}bit"]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        said = json.loads(done.stdout)
        found.append(f"{said['last'] * options.rate / 8 / options.size:.2f}")
    return ", ".join(found)


def main() -> None:
    """Run it and print what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hosts", default=[1, 2, 4, 8], type=int, nargs="+")
    parser.add_argument("--size", default="128MiB", type=parse_size)
    parser.add_argument("--rate", default="200Mbit", type=parse_rate, help="of each host's link")
    parser.add_argument("--seed-rate", type=parse_rate, help="of the seed's, default as the rest")
    parser.add_argument("--slow", default=0, type=int, help="so many more hosts, a tenth as fast")
    parser.add_argument("--kill-seed", action="store_true", help="in the middle")
    parser.add_argument("--rounds", default=2, type=int)
    parser.add_argument("--json", type=Path, help="write the rounds here, too")
    options = parser.parse_args()
    options.seed_rate = options.seed_rate or options.rate
    best = options.size * 8 / options.rate
    print(f"{format_size(options.size)}, best possible {best:.2f} s")
    print(
        "hosts  slowest            modelled           first  slowest/first  origin   from the seed"
    )
    rounds: dict[int, list[dict[str, Any]]] = {}
    try:
        for number in options.hosts:
            found = [measure(options, number) for _ in range(options.rounds)]
            rounds[number] = [each._asdict() for each in found]
            slowest = ", ".join(f"{max(each.seconds) / best:.2f}" for each in found)
            first = statistics.median(min(each.seconds) for each in found) / best
            spread = statistics.median(max(e.seconds) / min(e.seconds) for e in found)
            asked = max(each.origin for each in found) / options.size
            away = statistics.median(each.seed for each in found) / options.size
            line = f"{number:5}  {slowest:17}  {modelled(options, number):17}  {first:.2f}"
            print(f"{line}  {spread:14.2f}  {asked:.3f} ×  {away:.2f} ×", flush=True)
    except CannotLink as error:
        raise SystemExit(f"links: {error}") from None
    if options.json:
        options.json.write_text(json.dumps({"size": options.size, "rounds": rounds}))


if __name__ == "__main__":
    main()
