"""The daemon: everything a node does, put together.

- :mod:`.app`: builds everything; reads like a table of contents
- :mod:`.process`: a daemon as a process: what tells it to stop, and how it ends
- :mod:`.config`: settings: typed, units parsed, unknown keys refused
- :mod:`.config_values`: what a single one of them may be
- :mod:`.node`: what all rooms share
- :mod:`.gate`: what the cluster's operator has blocked is refused
- :mod:`.throttle`: a rate that nobody exceeds
- :mod:`.metrics`: the only module that knows Prometheus

and in rooms of their own

- :mod:`.downloading`: how content comes to this node
- :mod:`.importing`: files of this machine that become tasks
- :mod:`.serving`: programs on this machine, and the RPC methods
- :mod:`.sharing`: other nodes that want what is here
- :mod:`.telling`: what the schedulers are told, and where they are
- :mod:`.host`: what this machine has and how it feels
"""
