"""What a node holds: bytes, and what is known about them.

- :mod:`.pages`: memory as the system gives it: files, mappings, and who else has them
- :mod:`.memory`: content in memory: in the heap, without a descriptor, or in a segment
- :mod:`.metadata`: records of tasks and pieces
- :mod:`.holding`: one task, the two together: reserve, lease, claim, publish
- :mod:`.holdings`: all tasks, with the ledger: admit, evict, expire, delete
"""
