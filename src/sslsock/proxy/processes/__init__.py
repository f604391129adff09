"""Workers that are processes (`--processes`), behind one front.

The *front* is the process that was started. It has all that there is one of: the settings and the files, signals, the log's
words, metrics, checks, tickets, certificates. It accepts no connection. The *nursery* (`nursery`) is forked from it at the
start, while there is nothing that a fork could tear, and forks a *member* (`member`) whenever one is wanted: a process with one
worker, told by messages (`line`) what to go by (`plan`). The front's picture of them all is the `crew`.

A member that dies takes its own connections with it and nothing else: its listening sockets stay open in the nursery, so who is
connecting then waits until another has taken its place.
"""
