"""The benchmarks: `python -m bench` prints every figure beside its peer or its limit, and the goal.

Figures of one table row come from the same run, measured in turns, so that their ratio stands on a
busy machine too. CPU time is user + system of all processes of a server.
"""
