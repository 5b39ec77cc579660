"""A program's end of the hand-off socket: what ``dfget`` and the SDK are made of.

Pure, and shared by all:

- :mod:`.channel`: bytes in, events out
- :mod:`.arrival`: the events of one download, checked
- :mod:`.coverage`: which bytes of it are here
- :mod:`.tasks`: the events that tell of tasks
- :mod:`.wishes`: what a program wants, and the request that says so
- :mod:`.parts`: which ranges are asked for together; what is taken of content on its way
- :mod:`.meter`: rates
- :mod:`.tensor_header`, :mod:`.tensor_index`: what safetensors files say of themselves
- :mod:`.tensor_plan`: which bytes of them are asked for, and which tensors are here
- :mod:`.tensor_arrays`: how bytes become arrays

Those that wait:

- :mod:`.connection`: the socket; who dials, sends and receives
- :mod:`.personal`: a daemon of one's own where the machine has none
- :mod:`.output`: a file that appears whole or not at all, or a stream
- :mod:`.saving`: a daemon's events become an output
- :mod:`.landing`: where content lies in this process, and the lease on it
- :mod:`.fetch`: one download, step by step
- :mod:`.asking`: several of one call
- :mod:`.tensor_files`: the tensors of one safetensors file

What programs use:

- :mod:`.blocking`: the client
- :mod:`.asynchronous`, with :mod:`.fetch_async`: the one for event loops
- :mod:`.default`: the one whose methods are the functions of :mod:`pantala`
- :mod:`.dialling`: which daemon a client asks, and by what defaults
- :mod:`.content`: content that is here: views, and a path
- :mod:`.reading`: content as a file that is read while it comes
- :mod:`.safetensors`: tensors by name, of one file or several
- :mod:`.progress`: how far a download is
- :mod:`.filesystem`: fsspec's way to all that
- :mod:`.targets`: other file systems of fsspec's, and what to ask for in place of their paths
"""
