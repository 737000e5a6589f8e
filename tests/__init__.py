"""Tests mirror the packages; tests/system drives the installed command."""
