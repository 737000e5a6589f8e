"""Discovery: an image name to URLs to files."""
