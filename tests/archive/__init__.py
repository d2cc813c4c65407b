"""The archive format and its stores."""
