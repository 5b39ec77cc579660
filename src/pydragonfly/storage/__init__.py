"""What a node holds: bytes, and what is known about them.

- :mod:`.memory`: content in memory: one segment per task
- :mod:`.metadata`: records of tasks and pieces
- :mod:`.holdings`: the two together with the ledger: reserve, lease, claim, publish, evict
"""
