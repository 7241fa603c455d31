"""FIFOs of dataflow designs: how deep they have to be, so that nothing deadlocks and nothing waits.

`analysis` has what schedules and builds ask. Under it: what a process does to its FIFOs (`behaviour`, of
`steps`), a run of all processes (`simulate`, for long ones `compiled`), and the search for depths (`depths`).
"""
