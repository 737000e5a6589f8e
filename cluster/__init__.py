"""What makes many machines one."""
