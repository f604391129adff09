"""Tests of layers 0 to 2: the window BIO, the engine, contexts, the loop, channels and listeners."""
