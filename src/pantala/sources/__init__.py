"""Where content comes from: clients of origins.

registry         URL scheme -> ports.Source
http             http and https
http_connection  its connections: cut from any thread, and given up when they trickle
http_body        a response's body, on its way into the caller's memory
http_target      what goes into a request: URL, headers, credentials; where a redirect leads
http_answer      what a response's status and headers mean
http_failure     what went wrong, in words
file             files of this machine, where the operator allows it
"""
