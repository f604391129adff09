"""What TLS with clients is made of: `certificates`, and which of them a name gets; `tickets`, the keys that seal sessions."""
