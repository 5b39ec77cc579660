"""A swarm on a virtual clock: the code that decides in production, among models of all else.

    python -m pantala.sim flash-crowd --hosts 1000

The scheduler's world and its choices (:mod:`pantala.core.sched`) and each download's transfer and
its eye on the pace (:mod:`pantala.core.transfer`, :mod:`pantala.core.pace`) are those of
production. Links, streams, deaths and the shells of daemons are models. A run is a function of its
scenario and its seed. Nothing else imports this package; docs/simulation.md says how to read what
comes out.

- :mod:`.clock`: one heap of events
- :mod:`.network`: flows over links, each at its fair share
- :mod:`.host`: a host, and what it holds
- :mod:`.uploads`: what a host offers, and to whom
- :mod:`.exchange`: likewise, one that exchanges
- :mod:`.flight`: a download
- :mod:`.fetches`: what it fetches
- :mod:`.following`: what a parent tells it
- :mod:`.scheduler`: the scheduler
- :mod:`.standing`: what it is told by those who want nothing
- :mod:`.swarm`: all of them
- :mod:`.faults`: what goes wrong
- :mod:`.scenario`: what a run is of
- :mod:`.run`: a scenario becomes a swarm, which is run
- :mod:`.invariants`: what must always hold
- :mod:`.report`: what came of it, in figures
- :mod:`.plot`: and as a drawing
- :mod:`.__main__`: the command
"""
