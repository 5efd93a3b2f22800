"""A discrete-event simulator of lanes, in virtual time, over the router's own code."""
