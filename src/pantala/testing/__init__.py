"""Test kit, shipped so that those who extend pantala can use it too.

announce          peers and hosts played by hand, against a scheduler
bad_parent        a peer that a scheduler believes in, and that misbehaves
bad_talks         what such a peer says that exchanges
cluster           a scheduler and daemons as real processes
content           bytes, files, and patterns of any size that cost no memory
drawing           drawings of what benches have measured
faulty            one of our programs, whose background work is failed at random
forks             starts of programs that are already imported
formats           libraries that read through a daemon's files
handoff_daemon    the hand-off socket of a daemon, played from a script
imports           what the modules of this package import
inside            a scheduler and daemons inside this process
journal_contract  what every journal that outlives the process must do
kept_client       a program that asks often over one hand-off connection
keeper            a daemon that imports files and keeps replicas
kill_downloads    downloads while a daemon is killed, and what must hold when it is back
kill_imports      the same for imports, exports and replicas
kill_scene        what those two share
kills             programs that are killed again and again in the midst of their work
manager_server    a manager played by the contract
measure           what benches share, and others that they compare with
namespaces        hosts on links that have a limit, in network namespaces
origin            a real HTTP origin that counts, and misbehaves when told to
origin_server     the server under it
own_disk          runs a program on a small disk of its own
playground        a daemon for the tests of a session, and what each has of it
plugin            the pytest plugin with that as a fixture
ports             ports that stay one's own while nobody listens
program           our programs, running
raw_http2         HTTP/2 frames made by hand
seed              a seed played by hand, which a scheduler asks to fetch
sinks             a place for a piece that is not memory, to hold receivers to the rules
redis_server      a real Redis of a test's own
registry_server   a real container registry of a test's own
soak              churn under such faults, and what must hold in the end
soak_files        what its nodes are asked for
soak_nodes        what the soak asks of the nodes that it runs
sources           reading from sources to the end, and what they leave open
stage             a scheduler's world with a clock that is moved by hand
store_contract    what every sort of content must do
store_machine     any store in the hands of hypothesis
store_pieces      what every store must do with pieces
store_room        what every store must do with room
stores            stores whose clock is set by hand
tensors           safetensors files of any size, and broken ones
threads           blocking works side by side
unharmed          whether daemons have survived what was done to them
"""
