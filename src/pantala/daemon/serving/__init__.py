"""Programs on this machine, and the RPC methods.

- :mod:`.handoff_server`: the socket that passes memory to programs on this machine
- :mod:`.handoff_client`: whom it answers
- :mod:`.handoff_request`: what they ask for there
- :mod:`.handoff_tasks`: what they learn there of tasks, and how they delete them
- :mod:`.kept_connection`: one that asks many times
- :mod:`.whole`: small content that is answered at once
- :mod:`.caller`: whose they are
- :mod:`.services`: the gRPC services
- :mod:`.copies_service`: what schedulers alone ask
- :mod:`.exchange_service`: by which children follow what is here
- :mod:`.task_methods`: their methods for tasks, once for all kinds
- :mod:`.entries`: what an origin says of a URL
- :mod:`.output`: writing a file on a gRPC caller's behalf
"""
