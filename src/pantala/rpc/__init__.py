"""gRPC: the contract's messages, and nothing of what they decide.

- :mod:`.transport`: options of channels and servers, binding
- :mod:`.probing`: whether one can listen somewhere
- :mod:`.crowd`: room for all callers when one address opens connection after connection
- :mod:`.patience`: trying again what was refused for load
- :mod:`.server`: a server that lives, and is built anew if it ends after all
- :mod:`.service`: a service from its descriptor and an object
- :mod:`.status`: errors as statuses, and back
- :mod:`.convert`: messages to values, and back
- :mod:`.rows`: tasks of any message as rows of JSON
- :mod:`.codec`: the announce stream of any kind: values to messages, and back
- :mod:`.dialects`: which messages and methods speak of a kind of task to schedulers
- :mod:`.daemon_dialects`: which do to daemons
- :mod:`.announce_stream`: a daemon's end of the announce stream of one download
- :mod:`.connection`: the connection to a scheduler, as those need it who speak on it
- :mod:`.reporting`: pieces that a daemon tells of in batches
- :mod:`.holdings`: what a daemon holds, told in batches
- :mod:`.describing`: a daemon's end of the stream by which it asks what a task is
- :mod:`.import_calls`: what a daemon says to a scheduler of copies of imported tasks
- :mod:`.scheduler`: one scheduler, and the connection to it
- :mod:`.scheduler_link`: the schedulers of a daemon
- :mod:`.manager`: Dragonfly's manager, and who serves
- :mod:`.parent_link`: what a child asks of parents
"""
