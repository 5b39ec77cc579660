"""Decisions. Nothing here waits, looks at the clock, or rolls dice of its own.

- :mod:`.policy`: how the kinds of task differ, one row each
- :mod:`.transfer`: one download: events in, commands out
- :mod:`.pace`: how fast pieces come, which are late, who says nothing
- :mod:`.content_state`: what is known of one task's content on this node, and of each piece
- :mod:`.ledger`: whose bytes fill a store, who must go, who must not
- :mod:`.reclaim`: which tasks have outlived their time
- :mod:`.bucket`: token bucket
- :mod:`.deadlines`: things that are to be looked at, each at its time
- :mod:`.sample`: a set that gives its members at random
- :mod:`.shares`: a share for each of those who ask, of what there is for all
- :mod:`.giving`: which piece a parent offers to which child next
- :mod:`.batch`: pieces that a scheduler is told of in one word
- :mod:`.digests`: what pieces must be, by number
- :mod:`.window`: how many transfers at once fill a link
- :mod:`.places`: who may have how many connections and threads
- :mod:`.blocking`: what the operator of a cluster has blocked
- :mod:`.beliefs`: what schedulers believe of this host, and what they must hear
- :mod:`.absences`: schedulers that are perhaps back in a moment
- :mod:`.restarts`: when what has ended is started anew, and when that is given up
- :mod:`.ring`: which scheduler for which task, which seed
- :mod:`.patterns`: an operator's regular expressions, found in time that no text can make long
- :mod:`.fsm`: state machines written as tables
- :mod:`.sched`: the scheduler's world and choices
"""
