"""The runtime: the store, pods, isolation, networking, the command line."""
