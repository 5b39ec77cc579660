"""Dragonfly in Python: files distributed inside a cluster, from peers before the origin.

Read ARCHITECTURE.md for the map. Layers, imports only downward:

    cli                                     programs
    client                                  what programs ask a daemon with: the SDK
    daemon  scheduler                       assembly
    storage  net  sources  rpc              adapters; they do not know each other
    settings  background  logs  paths  pb   what several of the above share
    yaml_file  files                        files that settings are read from, or that share bytes
    ports                                   interfaces
    sim                                     a swarm on a virtual clock
    core  wire  model  errors               pure: nothing here waits, or asks the time

Of the modules at the top, :mod:`.settings` says what configuration files may hold, which
:mod:`.yaml_file` reads, :mod:`.background` runs what goes on beside the requests, :mod:`.logs` sets
logging up, :mod:`.paths` says where a daemon's sockets lie, :mod:`.files` has ways for files to
share their bytes, and :mod:`.pb` is the contract, generated. :mod:`.sim` runs the pure parts alone.
:mod:`.testing` is for those who test; nothing else imports it.
"""

__version__ = "0.1.0"

#: What we announce as ``build.git_version``. Its prefix is how a scheduler knows that a host
#: speaks the cache RPCs (a stock daemon aborts on one).
BUILD_VERSION = f"pantala/{__version__}"
