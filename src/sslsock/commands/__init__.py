"""Layer 6: the commands of `python -m sslsock`, one a file; `run(arguments)` does it and returns the exit
status.

They use the public interface of the package where there is one for what they do. `common` holds what several
of them need; `connect` has its dialogues in `starttls` and its way to standard input and output in
`standard_streams`, `serve` its HTTP in `www`, `bench` a folder.
"""
