"""The command line: `rkt-py VERB`."""
