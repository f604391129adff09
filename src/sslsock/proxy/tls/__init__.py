"""What TLS with clients is made of: `certificates`, and which of them a name gets; `contexts`, which show them; `tickets`, the
keys that seal sessions."""
