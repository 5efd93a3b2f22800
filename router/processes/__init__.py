"""
Several processes of one router on one port.

`supervisor` starts them and restarts those that die; all accept from one listening socket. `division` gives each its
part of what is bounded, `quota_table` is the memory in which they count tenants' quotas together, `siblings` is how
one asks the others, so that whoever is asked answers for all.
"""
