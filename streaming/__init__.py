"""The live side: smoothing and events now; sources, store and sinks of the daemon later."""
