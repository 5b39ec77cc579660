"""The programs.

- :mod:`.dfget`: fetch a URL, or many; starts in the time of a bare interpreter or two
- :mod:`.dfcache`: import a file into the cluster, export it again
- :mod:`.dfctl`: look at a daemon's tasks and remove them; have a scheduler preheat
- :mod:`.dfdaemon`: run the daemon of a machine; :mod:`._daemon_run` is what it runs
- :mod:`.dfscheduler`: run a scheduler; :mod:`._scheduler_run` is what it runs

What all of them share:

- :mod:`._completion`: what shells need to complete command lines
- :mod:`._daemon`: a daemon's gRPC socket, for those who ask and wait
- :mod:`._export`: an imported task becomes an output
- :mod:`._flags`: command lines: types of flags, and the environment behind them
- :mod:`._hosts`: the hosts of a scheduler, as ``dfctl`` lists them
- :mod:`._at_once`: asking several schedulers
- :mod:`._jobs`: ``dfctl job``; :mod:`._job_watch` asks schedulers of jobs, wherever they are
- :mod:`._identity`: URLs, and the flags that are part of their content's identity
- :mod:`._names`: what a user calls a task
- :mod:`._preheat`: the command line of ``dfctl … preheat``; :mod:`._preheat_job` asks a
  scheduler, :mod:`._preheat_report` prints what comes of it
- :mod:`._options`: flags that ``dfdaemon`` and ``dfscheduler`` share
- :mod:`._outcome`: the result of the one thing that was to be done, or the line that says why not
- :mod:`._process`: standard streams that are there, and take any text
- :mod:`._rows`: tasks as tables
- :mod:`._settings`: settings as ``--check`` prints them
- :mod:`._signals`: signals, and time that is up, as exceptions
- :mod:`._tasks_grpc`: a daemon's tasks, asked for over its gRPC socket
- :mod:`._tasks_handoff`: the same over its hand-off socket, which takes no gRPC
- :mod:`._text`: errors and flags fit for a terminal

What ``dfget`` is made of beside :mod:`pantala.client`; each imports as little as it can:

- :mod:`._arguments`: its command line and environment
- :mod:`._progress`: one line that tells how far it is

What it needs for many URLs alone:

- :mod:`._targets`: lists of URLs, and the files that they go to
- :mod:`._many`: those who fetch them, and what is told of each
- :mod:`._board`: lines that tell how far they are
"""

import os

# gRPC's core reads this when it is imported, and would write lines of its own between those of
# the log. What it has to say, we learn from its errors.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
