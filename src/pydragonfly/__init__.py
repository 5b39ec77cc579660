"""Dragonfly in Python: files distributed inside a cluster, from peers before the origin.

Read ARCHITECTURE.md for the map. Layers, imports only downward:

    cli                                   programs
    daemon  scheduler                     assembly
    storage  net  sources  rpc            adapters; they do not know each other
    ports                                 interfaces
    core  wire  model  errors             pure: nothing here waits, or asks the time
"""

__version__ = "0.1.0"

#: What we announce as ``build.git_version``. Its prefix is how a scheduler knows that a host
#: speaks the cache RPCs (a stock daemon aborts on one).
BUILD_VERSION = f"pydragonfly/{__version__}"
