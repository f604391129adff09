"""Layer 3: the socket family. State machines and handlers in Python, one file a class; every byte moves in
`sslsock.core`.

Files: `constants` (all enumerations), `states` (the state tables), `stream` with `text`,
`tcp_socket` with `connection`, `connector` and `resolver`, `ssl_socket` with `configuration` and `ssl_error`,
`tcp_server`, `ssl_server`, and `twins`, which makes the `_async` methods. No descriptor's errno and no
OpenSSL call goes beyond what these files name.
"""
