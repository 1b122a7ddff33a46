"""WHAT IS SHOWN: a run and its findings, drawn for people."""
