"""Video features of a frozen vision tower, kept on disk."""
