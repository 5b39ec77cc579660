"""The scheduler: a shell of gRPC around :mod:`pantala.core.sched`.

- :mod:`.app`: a running scheduler
- :mod:`.config`: its settings
- :mod:`.service`: the methods of the contract
- :mod:`.callers`: who calls
- :mod:`.announce_streams`: the streams of peers that download
- :mod:`.reports`: what they have got, in batches
- :mod:`.news`: what they are told without having asked
- :mod:`.wakeable`: waiting for a message, and for that
- :mod:`.waiters`: peers that wait for news of a task
- :mod:`.seeds`: asking seeds to fetch
- :mod:`.imports`: tasks that are imported
- :mod:`.replication`: keeping up how many hosts have one
- :mod:`.under_way`: imports that are under way
- :mod:`.copies`: what hosts are asked about their copies
- :mod:`.hosts`: calling a host
- :mod:`.jobs`: what all hosts are asked for at once: preheating, and what they hold
- :mod:`.orders`: what is to be preheated, judged before it is begun
- :mod:`.entries`: the files of a directory
- :mod:`.guard`: addresses that jobs keep away from
- :mod:`.preheating`: carrying jobs out
- :mod:`.swarm`: what concerns all hosts of a task
- :mod:`.descriptions`: one description of cold content for all
- :mod:`.records`: what outlives a scheduler
- :mod:`.dialects`: the names by which the contract calls each kind of task
- :mod:`.convert`: messages to values, and back
- :mod:`.metrics`: what is counted
"""
