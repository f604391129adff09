"""Files that settings name: how they are read, and how a change of one is noticed.

    reading     opening and reading, with the rights that it takes; what a reading has made of a file is kept for the next one
    watch       the thread that is told of changes
    paths       by which folders and links the system gets from a path to a file
"""
