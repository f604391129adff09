"""The proxy as users run it: a process of its own, with real peers on both sides."""
