"""One worker: RANK WORKERS ADDRESS WORKLOAD. Reads commands, writes answers, a JSON object a line.

The workload is described in JSON (`workloads.workload`). A command names a scheme and what to do:
{"scheme": NAME, "do": "compile"} answers with the bytes of a step, "run" and "offline" with the
seconds of "steps" steps on the network and without it, "train" with the losses on the way to
"target". {"probe": COLLECTIVE, "words": K, "steps": N} runs a collective alone. Ends with its
standard input.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import jax

import gradzip as gz
from experiments.network.job import Job, probe
from experiments.network.workloads import workload

START_SECONDS = 60


def main(rank: str, workers: str, address: str, description: str) -> None:
    """Answers until nobody asks."""
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # gloo prints to standard output

    def answer(words: dict) -> None:
        print(json.dumps(words), file=answers, flush=True)

    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
    jax.distributed.initialize(
        address, int(workers), int(rank), initialization_timeout=START_SECONDS
    )
    work = workload(json.loads(description), int(rank), int(workers))
    jobs = dict[str, Job]()
    answer({'ready': rank})
    for line in sys.stdin:
        command = json.loads(line)
        if 'probe' in command:
            answer({'seconds': probe(**command)})
            continue
        name = command.pop('scheme')
        for other in jobs:
            if other != name:
                jobs[other].rest()
        if name not in jobs:
            jobs[name] = Job(work, name)
        answer(_obey(jobs[name], **command))


def _obey(job: Job, do: str, **words: Any) -> dict:
    if do == 'run':
        return {'seconds': job.run(**words)}
    if do == 'offline':
        return {'seconds': job.run_offline(**words)}
    if do == 'train':
        return {'losses': job.train(**words)}
    return {'bytes': gz.wire_bytes(job.compiled)}


if __name__ == '__main__':
    main(*sys.argv[1:])
