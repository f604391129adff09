"""Floor 4: the TLS proxy, `python -m sslsock proxy`.

`options` and `config_file` make the `settings`; `server` is the process (signals, reload, drain), `worker` one
of its threads with a loop and its listeners, `session` one connection on its way to becoming a relay.
Policies, each in a file: `certificates` (which one for which name), `backends` (which one next, which left
out), `tickets`. What it tells: `metrics` (and `metrics_server`, on `small_server`), `access_log`, `summary`.
"""
