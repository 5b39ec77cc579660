"""What a node holds: bytes, and what is known about them.

- :mod:`.memory`: content in memory: one segment per task
- :mod:`.metadata`: records of tasks and pieces
- :mod:`.holding`: one task, the two together: reserve, lease, claim, publish
- :mod:`.holdings`: all tasks, with the ledger: admit, evict, expire, delete
"""
