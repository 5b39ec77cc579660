"""What a node holds: bytes, and what is known about them. A store for each medium.

- :mod:`.store`: all tasks in one medium, with the ledger: admit, evict, expire, delete
- :mod:`.stores`: the stores of a node, and which of them a kind is in
- :mod:`.home`: the store as its holdings see it
- :mod:`.holding`: one task: what is known, bytes, users
- :mod:`.known`: what is known of it, for those who only want to know
- :mod:`.growth`: one task of unknown length, while it comes
- :mod:`.claims`: its pieces on their way: claim, publish, wait
- :mod:`.leases`: who relies on bytes, here and in other programs
- :mod:`.journal`, :mod:`.sqlite_journal`: what outlives the process
- :mod:`.medium`: interfaces of what bytes may lie in
- :mod:`.memory`: memory as a medium, and what becomes of it when a task leaves
- :mod:`.segments`: ways of lying in memory: in the heap, without a descriptor, or in a segment
- :mod:`.cleaning`: how memory loses another task's bytes while it is used again
- :mod:`.pages`: memory as the system gives it: files, mappings, and who else has them
- :mod:`.disk`: a disk as a medium
- :mod:`.directory`: the directory on it that belongs to this daemon alone
- :mod:`.answers`: a small file that has the last answer of somebody who may be away
- :mod:`.files`: pieces in a file on a disk: received, checked, sent
"""
