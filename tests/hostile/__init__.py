"""Tests that mean harm: handlers that misbehave, streams cut anywhere, wrong input, and very much of everything."""
