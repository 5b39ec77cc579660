"""What the scheduler knows and decides. Pure: time and chance are arguments.

- :mod:`.states`: the lives of a task and of a peer, as tables
- :mod:`.rules`: how kinds of task differ, and the numbers that operators may change
- :mod:`.costs`: how long a peer's pieces took
- :mod:`.shape`: how a task is cut
- :mod:`.votes`: which shape counts if holders do not agree
- :mod:`.pool`: members in groups, of which one is drawn mostly from its own
- :mod:`.entities`: hosts, tasks and peers
- :mod:`.centres`: data centres, and who of one fetches from beyond it
- :mod:`.arrivals`: what comes to be when a host announces itself, or a peer registers
- :mod:`.holders`: where a peer counts in its task, and who hears of it
- :mod:`.blame`: whose fault it was
- :mod:`.room`: how much is kept of them
- :mod:`.digests`: what the pieces of a task must be
- :mod:`.edges`: who is whose parent, and what that costs a host
- :mod:`.partners`: who exchanges pieces with whom, both ways
- :mod:`.seeds`: which seed fetches a task from its origin
- :mod:`.world`: all of them, and everything that can happen to them
- :mod:`.owners`: whose a host is
- :mod:`.evaluate`: how good a parent is for a child
- :mod:`.choose`: parents for a peer, or the origin, or patience
- :mod:`.questions`: what hosts ask of cold content, and what they have heard of its origin
- :mod:`.refusals`: how that origin has failed them, and whether another is to try
- :mod:`.describing`: one description of it for all: who asks the origin, who waits
- :mod:`.records`: what of imported tasks outlives a scheduler
- :mod:`.imported`: what of these rows is in the world
- :mod:`.replicas`: which hosts keep copies of an imported task
- :mod:`.expire`: what has gone without saying so
"""
