"""Floor 4: the commands of `python -m sslsock`, one a file; `run(arguments)` does it and returns the exit
status.

They use the public interface of the package only. `common` holds what several of them need; `connect` has its
dialogues in `starttls` and its way to standard input and output in `standard_streams`, `serve` its HTTP in
`www`, `bench` a folder.
"""
