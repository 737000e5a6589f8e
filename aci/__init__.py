"""The App Container Image format: bytes in, values out. No network, no root."""
